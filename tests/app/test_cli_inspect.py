"""`zturbo inspect` reads a picture's own account of its making."""

import hashlib
import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from app.cli.exits import Exit
from app.cli.inspect import register
from worker.encoding.encode import encode

MADE = {
    "version": "1.2.3",
    "model_id": "some/model",
    "model": "some-model",
    "prompt": "ein süßer Hund 🐕",
    "expanded_prompt": None,
    "seed": 7,
    "num_inference_steps": 8,
    "width": 16,
    "height": 16,
    "strength": None,
    "control": None,
    "loras": [],
    "request": {"prompt": "ein süßer Hund 🐕", "image_url": "https://example.com/x.png", "seed": -1},
}


@pytest.fixture
def cli() -> typer.Typer:
    cli = typer.Typer()
    # With a second command the program keeps the name of the first.
    cli.command("other")(lambda: None)
    register(cli)
    return cli


@pytest.fixture
def picture(tmp_path):
    """Writes a picture that says `made` of itself."""

    def write(output_format: str = "png", made: dict | None = MADE) -> str:
        file = tmp_path / f"picture.{output_format}"
        file.write_bytes(encode(np.zeros((16, 16, 3), np.uint8), output_format, made).data)
        return str(file)

    return write


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_prints_the_parameters(cli, picture, output_format):
    result = CliRunner().invoke(cli, ["inspect", picture(output_format)])

    assert result.exit_code == 0
    assert result.stdout.startswith("ein süßer Hund 🐕\nSteps: 8, Sampler: Euler, CFG scale: 1, Seed: 7, ")


def test_prints_everything_as_json(cli, picture):
    result = CliRunner().invoke(cli, ["inspect", picture(), "--json"])

    assert json.loads(result.stdout)["zturbo"] == MADE


def test_gives_back_the_request_with_the_seed_that_was_drawn(cli, picture):
    result = CliRunner().invoke(cli, ["inspect", picture(), "--request"])

    assert json.loads(result.stdout) == {**MADE["request"], "seed": 7}
    assert result.stderr == ""


def test_says_that_the_image_and_the_urls_of_loras_are_not_in_the_picture(cli, picture):
    digest = hashlib.sha256(b"image").hexdigest()
    loras = [{"path": "me/style", "scale": 1}, {"path": "example.com/.../ink.safetensors", "scale": 1}]
    pictures = {"image_url": f"sha256:{digest}", "mask_image_url": "sha256:ab12"}
    made = {**MADE, "request": {**MADE["request"], **pictures, "loras": loras}}

    result = CliRunner().invoke(cli, ["inspect", picture(made=made), "--request"])

    assert json.loads(result.stdout)["image_url"] == f"sha256:{digest}"
    assert "The input image is not kept" in result.stderr
    assert digest in result.stderr
    assert (
        "The mask is not kept in the picture. Put yours in mask_image_url; its file has the sha256 ab12"
        in (result.stderr)
    )
    assert "The URL of example.com/.../ink.safetensors is not kept" in result.stderr
    assert "loras[1].path" in result.stderr
    assert "me/style" not in result.stderr


def test_prints_our_own_account_where_the_parameters_did_not_fit(cli, picture):
    made = {**MADE, "prompt": "ten chars " * 2000}

    result = CliRunner().invoke(cli, ["inspect", picture("jpeg", {**made, "request": {**made}})])

    assert json.loads(result.stdout)["seed"] == 7


def test_picture_without_metadata_is_an_error(cli, picture):
    result = CliRunner().invoke(cli, ["inspect", picture(made=None)])

    assert result.exit_code == Exit.FAILED
    assert "says nothing" in result.stderr


def test_file_that_is_missing_or_no_picture_is_an_error(cli, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no picture")

    assert CliRunner().invoke(cli, ["inspect", str(tmp_path / "none.png")]).exit_code == Exit.NO_INPUT
    assert CliRunner().invoke(cli, ["inspect", str(text)]).exit_code == Exit.DATA
