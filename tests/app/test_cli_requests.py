"""`zturbo submit`, `status`, `result` and `cancel` against a real server."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from app.cli import inspect
from app.cli import requests as commands
from app.cli.exits import Exit
from app.cli.options import image_url
from app.cli.progress import RequestProgress
from app.config import Settings
from app.main import create_app
from models import command
from models.job import Facts, Job
from models.schema.inputs import ControlNetLoraInput
from tests.contract.test_preprocess import write_lora
from tests.support.http_api import DOCUMENTED_INPUT, PNG, WorkerHands, served
from tests.support.processes import wait_for
from worker.encoding.encode import encode
from worker.encoding.metadata import describe as describe_picture
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage, new_file_id

Run = Callable[..., Result]
MINIMAL = ("--prompt", "A lighthouse", "--image", "https://example.com/a.png")


@pytest.fixture
def base_url(settings: Settings) -> Iterator[str]:
    with served(create_app(settings), settings) as url:
        yield url


@pytest.fixture
def zturbo(base_url: str) -> Run:
    cli = typer.Typer()
    commands.register(cli)
    inspect.register(cli)
    runner = CliRunner(env={"ZTURBO_BASE_URL": base_url, "ZTURBO_TOKEN": "any"})

    def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
        return runner.invoke(cli, arguments, input=stdin)

    return run


@pytest.fixture
def picture(settings: Settings) -> dict[str, Any]:
    """An output as a worker records it, its file stored."""
    file_id = new_file_id()
    Storage(open_objects(settings)).put(file_id, "image.png", PNG)
    return {"image": {"file_id": file_id, "name": "image.png"}, "seed": 7}


@pytest.fixture
def worked_on(hands: WorkerHands, picture: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The request that a command waits for succeeds as soon as it has been looked at once."""
    show = RequestProgress.show

    def show_and_work(progress: RequestProgress, status: dict[str, Any]) -> None:
        show(progress, status)
        if status["status"] == "in_queue":
            hands.succeed(picture)

    monkeypatch.setattr(RequestProgress, "show", show_and_work)
    monkeypatch.setattr("app.client.POLL_SECONDS", 0.01)


def recorded(hands: WorkerHands, request_id: str) -> dict[str, Any]:
    record = hands.work_queue.get(request_id.strip())
    assert record is not None
    return record.input


def write_picture(folder: Path, output_format: str, body: dict[str, Any]) -> Path:
    """A file as the finish stage writes it, with the seed that was drawn."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    job = Job(prompt=body["prompt"], width=16, height=16, num_inference_steps=8, seed=1234)
    facts = Facts(model="demo", seeds=job.seeds, prompt=job.prompt)
    metadata = describe_picture("some/model", body, job, facts, job.seed)
    file = folder / f"made.{output_format}"
    file.write_bytes(encode(pixels, output_format, metadata).data)
    return file


@pytest.mark.usefixtures("worked_on")
def test_submit_waits_tells_each_warning_once_and_saves_the_picture(
    zturbo: Run, picture: dict[str, Any], tmp_path: Path
) -> None:
    picture["warnings"] = ["The model draws at a size of its own."]
    body = json.dumps(DOCUMENTED_INPUT | {"stray": 1})
    ran = zturbo("submit", "--input", "-", "--out", str(tmp_path / "out.png"), stdin=body)
    assert ran.exit_code == 0, ran.output
    ignored, drawn = ran.stderr.splitlines()
    assert "'stray'" in ignored
    assert drawn == picture["warnings"][0]
    assert ran.stdout.strip() == str(tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == PNG


@pytest.mark.usefixtures("worked_on")
def test_submit_names_the_picture_after_the_request(
    zturbo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    body = json.loads(zturbo("submit", *MINIMAL, "--json").stdout)
    assert body["saved"] == [f"{body['request_id']}.png"]
    assert (tmp_path / body["saved"][0]).read_bytes() == PNG


def test_every_field_of_the_schema_has_a_flag(zturbo: Run, hands: WorkerHands, settings: Settings) -> None:
    write_lora(settings.loras_path / "style.safetensors", {})
    ran = zturbo(
        *("submit", "--detach", *MINIMAL, "--lora", "style.safetensors:0.5", "--lora", "owner/repo"),
        *(
            "--image-size",
            "square",
            "--control-scale",
            "0.5",
            "--control-start",
            "0.1",
            "--control-end",
            "0.6",
        ),
        *("--preprocess", "canny", "--num-inference-steps", "4", "--seed", "-1", "--num-images", "2"),
        *("--seed-variance", "0.1"),
        *("--enable-prompt-expansion", "--output-format", "webp"),
    )
    assert ran.exit_code == 0, ran.output
    sent = recorded(hands, ran.stdout)
    assert sent == {
        "prompt": "A lighthouse",
        "image_url": "https://example.com/a.png",
        "loras": [{"path": "style.safetensors", "scale": 0.5}, {"path": "owner/repo", "scale": 1.0}],
        "image_size": "square",
        "control_scale": 0.5,
        "control_start": 0.1,
        "control_end": 0.6,
        "preprocess": "canny",
        "num_inference_steps": 4,
        "seed": -1,
        "num_images": 2,
        "seed_variance": 0.1,
        "enable_prompt_expansion": True,
        "output_format": "webp",
    }
    assert set(sent) == set(ControlNetLoraInput.model_fields)


@pytest.mark.parametrize("field", ["image_size", "preprocess", "output_format"])
def test_help_names_the_choices_of_the_schema(zturbo: Run, field: str) -> None:
    command = typer.main.get_command(_cli()).commands["submit"]  # type: ignore[attr-defined]
    [option] = [option for option in command.params if option.name == field]
    choices = ControlNetLoraInput.model_json_schema()["properties"][field]["enum"]
    assert set(choices) <= set(re.findall(r"\w+", option.help))


def _cli() -> typer.Typer:
    cli = typer.Typer()
    commands.register(cli)
    inspect.register(cli)
    return cli


@pytest.mark.parametrize(
    ("given", "model_id"),
    [
        ((), "tongyi-mai/z-image/turbo/lora"),
        (("--image", "https://example.com/a.png"), "tongyi-mai/z-image/turbo/controlnet/lora"),
        (
            ("--image", "https://example.com/a.png", "--strength", "0.5"),
            "tongyi-mai/z-image/turbo/image-to-image/lora",
        ),
        (
            ("--image", "https://example.com/a.png", "--mask", "https://example.com/m.png"),
            "tongyi-mai/z-image/turbo/inpainting/lora",
        ),
        (("--model-id", "turbo"), "tongyi-mai/z-image/turbo"),
        (
            ("--model-id", "controlnet", "--image", "https://example.com/a.png"),
            "tongyi-mai/z-image/turbo/controlnet",
        ),
        (("--model-id", "tongyi-mai/z-image/turbo"), "tongyi-mai/z-image/turbo"),
    ],
)
def test_model_is_the_one_named_else_the_one_that_takes_what_is_given(
    zturbo: Run, hands: WorkerHands, given: tuple[str, ...], model_id: str
) -> None:
    ran = zturbo("submit", "--detach", "--prompt", "A red ball on grass", *given)
    assert (ran.exit_code, ran.stderr) == (0, "")
    record = hands.work_queue.get(ran.stdout.strip())
    assert record is not None
    assert record.model_id == model_id


def test_image_and_input_are_read_from_standard_input(zturbo: Run, hands: WorkerHands) -> None:
    ran = zturbo("submit", "--detach", "--prompt", "x", "--image", "-", stdin=PNG)
    assert recorded(hands, ran.stdout)["image_url"].startswith("data:image/png;base64,")

    ran = zturbo("submit", "--detach", "--input", "-", "--seed", "5", stdin=json.dumps(DOCUMENTED_INPUT))
    assert recorded(hands, ran.stdout) == ControlNetLoraInput(
        **DOCUMENTED_INPUT | {"seed": 5, "loras": DOCUMENTED_INPUT["loras"]}
    ).model_dump(mode="json")

    assert zturbo("submit", "--image", "-", "--input", "-").exit_code == Exit.USAGE


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_picture_sends_its_own_request_again_with_the_image(
    output_format: str, zturbo: Run, hands: WorkerHands, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(PNG)
    asked = ControlNetLoraInput(
        **DOCUMENTED_INPUT | {"output_format": output_format, "image_url": image_url(str(photo))}
    ).model_dump(mode="json")
    file = write_picture(tmp_path, output_format, asked)

    inspected = zturbo("inspect", str(file), "--request")
    ran = zturbo("submit", "--detach", "--input", "-", "--image", str(photo), stdin=inspected.stdout)

    assert recorded(hands, ran.stdout) == asked | {"seed": 1234}


def test_picture_is_not_sent_again_without_the_image(zturbo: Run, tmp_path: Path) -> None:
    asked = ControlNetLoraInput(**DOCUMENTED_INPUT).model_dump(mode="json")
    inspected = zturbo("inspect", str(write_picture(tmp_path, "png", asked)), "--request")

    ran = zturbo("submit", "--detach", "--input", "-", stdin=inspected.stdout)

    assert ran.exit_code == Exit.DATA
    assert ran.stderr.startswith("--image: ")


def test_warnings_go_to_standard_error(zturbo: Run) -> None:
    ran = zturbo("submit", "--detach", "--input", "-", stdin=json.dumps(DOCUMENTED_INPUT | {"stray": 1}))
    assert "'stray'" in ran.stderr
    assert "stray" not in ran.stdout


@pytest.mark.usefixtures("worked_on")
def test_each_seed_makes_a_picture_in_a_folder_that_is_made(
    zturbo: Run, hands: WorkerHands, tmp_path: Path
) -> None:
    folder = tmp_path / "some" / "pictures"
    ran = zturbo("submit", *MINIMAL, "--seed", "1,2,-1", "--out", str(folder))
    assert ran.exit_code == 0, ran.output
    saved = [Path(line) for line in ran.stdout.splitlines()]
    assert [file.read_bytes() for file in saved] == [PNG] * 3
    assert {file.parent for file in saved} == {folder}
    assert [recorded(hands, file.stem)["seed"] for file in saved] == [1, 2, -1]


def test_several_pictures_do_not_go_into_one_file_nor_one_into_a_file_of_another_format(
    zturbo: Run, hands: WorkerHands
) -> None:
    assert zturbo("submit", *MINIMAL, "--seed", "1,2", "--out", "one.png").exit_code == Exit.USAGE
    assert zturbo("submit", *MINIMAL, "--seed", "1;2").exit_code == Exit.USAGE
    contradiction = zturbo("submit", *MINIMAL, "--out", "a.webp", "--output-format", "jpeg")
    assert contradiction.exit_code == Exit.USAGE
    assert "a.webp is the name of a webp file, but --output-format says jpeg" in contradiction.stderr
    assert hands.client.zcard("zturbo:line") == 0


@pytest.mark.parametrize(("suffix", "output_format"), [("JPG", "jpeg"), ("webp", "webp")])
def test_suffix_of_out_is_the_format_that_is_asked_for(
    zturbo: Run, hands: WorkerHands, suffix: str, output_format: str
) -> None:
    ran = zturbo("submit", "--detach", *MINIMAL, "--out", f"picture.{suffix}")
    assert recorded(hands, ran.stdout)["output_format"] == output_format


@pytest.mark.usefixtures("worked_on")
# Whoever opens a picture is left to itself.
@pytest.mark.filterwarnings("ignore:subprocess:ResourceWarning")
def test_picture_is_opened_by_the_desktop(
    zturbo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = tmp_path / "xdg-open"
    opener.write_text(
        f'#!/bin/sh\necho "$1" > {tmp_path}/opened.part; mv {tmp_path}/opened.part {tmp_path}/opened'
    )
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert zturbo("submit", *MINIMAL, "--out", str(tmp_path / "out.png"), "--open").exit_code == 0
    wait_for((tmp_path / "opened").exists)
    assert (tmp_path / "opened").read_text().strip() == str(tmp_path / "out.png")


def test_status_result_and_cancel(
    zturbo: Run, hands: WorkerHands, picture: dict[str, Any], tmp_path: Path
) -> None:
    first, second = (zturbo("submit", "--detach", *MINIMAL).stdout.strip() for _ in range(2))

    assert zturbo("status", second).stdout.strip() == "in queue, 1 ahead"
    assert json.loads(zturbo("status", second, "--json").stdout)["queue_position"] == 1
    assert zturbo("cancel", second).stdout.strip() == "cancelled (cancelled)"
    assert zturbo("result", second).exit_code == Exit.FAILED

    hands.generate(step=1)
    ran = zturbo("cancel", first)
    assert (ran.exit_code, ran.stdout.strip()) == (Exit.FAILED, "not cancellable (in progress)")
    assert zturbo("result", first).stdout.strip() == "in progress"
    assert zturbo("cancel", first, "--force").exit_code == 0

    third = zturbo("submit", "--detach", *MINIMAL).stdout.strip()
    hands.succeed(picture)
    path = f"/v1/files/{picture['image']['file_id']}/image.png"
    assert zturbo("result", third).stdout.strip().endswith(path)
    ran = zturbo("result", third, "--wait", "--out", str(tmp_path / "third.png"))
    assert (ran.exit_code, (tmp_path / "third.png").read_bytes()) == (0, PNG)


def test_several_pictures_are_saved_beside_each_other(
    zturbo: Run, hands: WorkerHands, picture: dict[str, Any], tmp_path: Path
) -> None:
    request_id = zturbo("submit", "--detach", *MINIMAL, "--num-images", "2").stdout.strip()
    hands.succeed(picture | {"images": [picture["image"]] * 2, "seeds": [7, 8]})
    ran = zturbo("result", request_id, "--out", str(tmp_path))
    saved = [tmp_path / f"{request_id}-{place}.png" for place in (1, 2)]
    assert ran.stdout.split() == [str(path) for path in saved]
    assert saved[1].read_bytes() == PNG
    one_file = zturbo("result", request_id, "--out", str(tmp_path / "fox.png"))
    assert (one_file.exit_code, (tmp_path / "fox.png").exists()) == (Exit.USAGE, False)


def test_failed_request_is_told_with_its_reason(zturbo: Run, hands: WorkerHands) -> None:
    request_id = zturbo("submit", "--detach", *MINIMAL).stdout.strip()
    hands.fail("fetch_failed", "image_url: example.com did not answer.")
    ran = zturbo("result", request_id)
    assert ran.exit_code == Exit.FAILED
    assert ran.stdout.strip() == "failed: image_url: example.com did not answer."


def test_exit_status_tells_whose_fault_it_is(zturbo: Run, hands: WorkerHands, tmp_path: Path) -> None:
    refused = zturbo(
        "submit", "--prompt", "x", "--image", "https://example.com/a.png", "--num-inference-steps", "9"
    )
    assert refused.exit_code == Exit.DATA
    assert refused.stderr.startswith("--num-inference-steps: ")
    assert zturbo("status", "nope").exit_code == Exit.DATA
    away = zturbo("status", "x", "--base-url", "http://127.0.0.1:9")
    assert (away.exit_code, f"`{command.zturbo()} serve` starts" in away.stderr) == (Exit.UNAVAILABLE, True)
    assert zturbo("status", "x", "--base-url", "box:8000").exit_code == Exit.USAGE
    assert zturbo("submit", "--image", str(tmp_path / "none.png")).exit_code == Exit.NO_INPUT
    assert zturbo("submit", "--input", "-", stdin="{").exit_code == Exit.DATA
    assert zturbo("submit", "--input", "-", stdin="[]").exit_code == Exit.DATA
    assert zturbo("submit", *MINIMAL, "--timeout", "0").exit_code == Exit.TRY_LATER


def test_picture_that_cannot_be_saved_is_told(
    zturbo: Run, hands: WorkerHands, picture: dict[str, Any], tmp_path: Path
) -> None:
    request_id = zturbo("submit", "--detach", *MINIMAL).stdout.strip()
    hands.succeed(picture)
    ran = zturbo("result", request_id, "--out", str(tmp_path / "no" / "such" / "folder.png"))
    assert ran.exit_code == Exit.CANNOT_CREATE
    # The file that is written first has a longer name, which is nobody's.
    longest = tmp_path / f"{'x' * 251}.png"
    ran = zturbo("result", request_id, "--out", str(longest))
    assert (ran.exit_code, ran.stderr) == (
        Exit.CANNOT_CREATE,
        f"{longest} cannot be written: File name too long.\n",
    )
    ran = zturbo("result", request_id, "--out", str(tmp_path / "a.jpg"))
    assert (ran.exit_code, ran.stderr) == (
        Exit.USAGE,
        f"--out: {tmp_path}/a.jpg is the name of a jpeg file, but the picture is {request_id}.png.\n",
    )


def test_wrong_key_is_a_permission_fault(settings: Settings) -> None:
    settings = settings.model_copy(update={"api_keys": "ann:secret"})
    with served(create_app(settings), settings) as base_url:
        arguments = ["status", "x", "--base-url", base_url]
        assert CliRunner().invoke(_cli(), [*arguments, "--token", "wrong"]).exit_code == Exit.NO_PERMISSION
        keyless = CliRunner().invoke(_cli(), arguments)
        assert keyless.exit_code == Exit.NO_PERMISSION
        assert keyless.stderr.endswith(" Give the key by --token or ZTURBO_TOKEN.\n")
