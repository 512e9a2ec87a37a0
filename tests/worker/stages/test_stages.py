"""Prepare and finish as plain functions; generate is the engine's."""

import base64
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.canny import canny
from models.config import DEFAULT_CONTROLNET
from models.errors import ControlNetError, SizeError
from models.job import Facts, Generated
from models.schema.inputs import AnyInput, ControlNetLoraInput, ImageToImageLoraInput, InpaintingLoraInput
from models.weights import demo
from models.weights.published import CONTROLNET_2_1
from tests.support.prompt_server import PromptServer, completion
from worker.config import WorkerSettings
from worker.encoding.metadata import read_metadata
from worker.errors import FetchError, ImageError
from worker.stages.picture import finish, prepare
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage

MODEL = "tongyi-mai/z-image/turbo/controlnet/lora"
FILE_IDS = {"image": "a" * 32, "control_image": "b" * 32}
WIDTH, HEIGHT = demo.native_size(640, 512)


def picture_uri(width: int = 640, height: int = 512) -> str:
    """Left half black, right half white."""
    image = Image.new("RGB", (width, height))
    image.paste("white", (width // 2, 0, width, height))
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


IMAGE_SHA256 = hashlib.sha256(base64.b64decode(picture_uri().partition(",")[2])).hexdigest()


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(_env_file=None, data_dir=tmp_path, model="demo")


@pytest.fixture
def storage(settings: WorkerSettings) -> Storage:
    return Storage(open_objects(settings))


def asked(**fields: Any) -> AnyInput:
    body = {"prompt": "a fox", "image_url": picture_uri(), "loras": []} | fields
    return AnyInput.model_validate(ControlNetLoraInput.model_validate(body).model_dump(mode="json"))


def test_everything_asked_for_is_in_the_job(settings: WorkerSettings, storage: Storage) -> None:
    job, control, _ = prepare(
        asked(num_inference_steps=6, seed=5, control_start=0.1, enable_prompt_expansion=True),
        settings,
        storage,
    )
    assert (job.prompt, job.num_inference_steps, job.seed) == ("a fox", 6, 5)
    assert (job.control_scale, job.control_start, job.control_end) == (0.9, 0.1, 0.4)
    assert job.enable_prompt_expansion
    assert (job.controlnet_name, job.controlnet) == (
        DEFAULT_CONTROLNET,
        demo.CONTROLNET,
    )
    assert (job.width, job.height) == (WIDTH, HEIGHT)
    assert (control.shape, control.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert job.warnings == (f"The demo model draws at a small size of its own: {WIDTH}x{HEIGHT} this time.",)


@pytest.mark.parametrize("preprocess", ["none", "canny", "depth", "pose"])
def test_control_pixels_have_the_outputs_size(
    settings: WorkerSettings, storage: Storage, preprocess: str
) -> None:
    job, control, _ = prepare(asked(image_size="portrait_16_9", preprocess=preprocess), settings, storage)
    assert (job.width, job.height) == demo.native_size(576, 1024)
    assert control.shape == (job.height, job.width, 3)


def test_canny_is_done_here_and_the_other_detectors_are_not(
    settings: WorkerSettings, storage: Storage
) -> None:
    plain_job, plain, _ = prepare(asked(), settings, storage)
    job, control, _ = prepare(asked(preprocess="canny"), settings, storage)
    np.testing.assert_array_equal(control, canny(plain, WIDTH, HEIGHT))
    assert control.any()
    assert (plain_job.preprocess, job.preprocess) == ("none", "none")
    assert prepare(asked(preprocess="depth"), settings, storage)[0].preprocess == "depth"


def test_controlnet_entrys_scale_multiplies_control_scale(settings: WorkerSettings, storage: Storage) -> None:
    entry = {"path": DEFAULT_CONTROLNET, "scale": 0.5}
    job, *_ = prepare(asked(loras=[entry], control_scale=0.8), settings, storage)
    assert job.control_scale == pytest.approx(0.4)
    assert job.loras == ()


def test_controlnet_that_is_named_is_used_and_the_default_one_not_looked_for(
    settings: WorkerSettings, storage: Storage
) -> None:
    other = settings.model_copy(update={"controlnet": "no-such-file.safetensors"})
    entry = {"path": f"{DEFAULT_CONTROLNET}-2.1", "scale": 1.0}
    job, *_ = prepare(asked(loras=[entry]), other, storage)
    assert (job.controlnet_name or "").startswith(entry["path"])
    prepare(asked(control_scale=0.0), other, storage)


@pytest.mark.parametrize(
    "fields",
    [{"control_scale": 0.0}, {"control_start": 0.4}, {"loras": [{"path": DEFAULT_CONTROLNET, "scale": 0.0}]}],
)
def test_no_controlnet_is_asked_for_when_none_would_run(
    settings: WorkerSettings, storage: Storage, fields: dict[str, Any]
) -> None:
    job, *_ = prepare(asked(**fields), settings, storage)
    assert (job.controlnet, job.controlnet_name) == (None, None)


def test_window_without_a_whole_step_guides_nothing_and_says_so(
    settings: WorkerSettings, storage: Storage
) -> None:
    job, *_ = prepare(asked(num_inference_steps=2), settings, storage)
    assert job.controlnet is None
    # The first is of the demo model's size.
    assert job.warnings[1:] == (
        "No whole step of 2 lies between control_start 0 and control_end 0.4, so the image guides nothing; "
        "ask for more steps or a wider window.",
    )
    assert prepare(asked(num_inference_steps=3), settings, storage)[0].warnings[1:] == ()
    for nothing_asked in ({"control_start": 0.4}, {"control_scale": 0.0, "num_inference_steps": 2}):
        assert prepare(asked(**nothing_asked), settings, storage)[0].warnings[1:] == ()


def test_prompt_is_rewritten_here_when_a_server_does_it(
    settings: WorkerSettings, storage: Storage, prompt_server: PromptServer
) -> None:
    settings.prompt_llm_url = prompt_server.url
    prompt_server.answer = completion("a red fox in deep snow")
    job, *_ = prepare(asked(enable_prompt_expansion=True, seed=5), settings, storage)
    assert (job.prompt, job.expanded_prompt, job.enable_prompt_expansion) == (
        "a fox",
        "a red fox in deep snow",
        False,
    )
    prompt_server.status = 500
    job, *_ = prepare(asked(enable_prompt_expansion=True), settings, storage)
    assert (job.expanded_prompt, job.enable_prompt_expansion) == (None, False)
    assert job.warnings[1:] == (
        "The prompt was used as it is: the server that rewrites prompts answered 500.",
    )
    assert len(prompt_server.asked) == 2
    prepare(asked(), settings, storage)
    assert len(prompt_server.asked) == 2


def test_controlnet_without_an_image_is_refused(settings: WorkerSettings, storage: Storage) -> None:
    body = asked(loras=[{"path": DEFAULT_CONTROLNET}], image_size="square").model_dump(exclude={"image_url"})
    with pytest.raises(ControlNetError, match="needs an image_url"):
        prepare(AnyInput.model_validate(body), settings, storage)


def painted(left: int, top: int, right: int, bottom: int, size: tuple[int, int] = (640, 512)) -> str:
    """A mask that is white within these borders."""
    image = Image.new("RGB", size)
    image.paste("white", (left, top, right, bottom))
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def inpainting(**fields: Any) -> AnyInput:
    mask = painted(160, 128, 480, 512)
    body = {"prompt": "a fox", "image_url": picture_uri(), "mask_image_url": mask} | fields
    return AnyInput.model_validate(InpaintingLoraInput.model_validate(body).model_dump(mode="json"))


def image_to_image(**fields: Any) -> AnyInput:
    body = {"prompt": "a fox", "image_url": picture_uri()} | fields
    return AnyInput.model_validate(ImageToImageLoraInput.model_validate(body).model_dump(mode="json"))


def test_image_that_is_changed_is_the_start_and_guides_nothing(
    settings: WorkerSettings, storage: Storage
) -> None:
    job, control, start = prepare(image_to_image(num_inference_steps=5, strength=0.4), settings, storage)
    assert (job.strength, job.first_step, job.is_controlled, job.controlnet) == (0.4, 3, False, None)
    assert control is None
    assert start is not None
    assert (start.image.shape, start.mask) == ((HEIGHT, WIDTH, 3), None)
    assert start.image[0, [0, -1], 0].tolist() == [0, 255]
    with pytest.raises(ControlNetError, match="image to image has none"):
        prepare(image_to_image(loras=[{"path": DEFAULT_CONTROLNET}]), settings, storage)


def test_mask_has_the_outputs_size_and_is_cut_as_the_image(
    settings: WorkerSettings, storage: Storage
) -> None:
    _, _, start = prepare(inpainting(), settings, storage)
    assert start is not None
    assert start.mask is not None
    assert (start.mask.shape, start.image.shape) == ((HEIGHT, WIDTH), (HEIGHT, WIDTH, 3))
    # From a quarter to three quarters across, and from a quarter down; above and below as much is cut.
    rows, columns = start.mask.nonzero()
    cut = (512 * WIDTH / 640 - HEIGHT) / 2
    assert (rows.min(), rows.max()) == (round(128 * WIDTH / 640 - cut), HEIGHT - 1)
    assert (columns.min(), columns.max()) == (WIDTH // 4, WIDTH * 3 // 4 - 1)
    _, _, square = prepare(inpainting(image_size="square"), settings, storage)
    assert square is not None
    assert square.mask is not None
    # Of 640 pixels the middle 512 are left.
    assert square.mask.nonzero()[1].min() == square.mask.shape[1] * (160 - 64) // 512


def test_controlnet_that_knows_no_masks_is_left_out_and_the_result_says_so(
    settings: WorkerSettings, storage: Storage
) -> None:
    job, *_ = prepare(inpainting(), settings, storage)
    assert (job.controlnet, job.is_controlled) == (None, False)
    assert "knows no masks" in job.warnings[1]
    job, *_ = prepare(inpainting(loras=[{"path": CONTROLNET_2_1, "scale": 0.5}]), settings, storage)
    assert (job.controlnet_name, job.control_scale, job.control_end) == (CONTROLNET_2_1, 0.375, 0.8)
    assert (job.is_controlled, job.warnings[1:]) == (True, ())


@pytest.mark.parametrize(
    ("mask", "fault"),
    [
        (painted(0, 0, 9, 9, (512, 640)), "the mask is 512x640 and the image in image_url 640x512"),
        (painted(0, 0, 0, 0), "nothing in the mask is white, so"),
        (
            painted(300, 300, 301, 512),
            f"nothing in the mask is white at the picture's size, {WIDTH}x{HEIGHT}",
        ),
        ("http://127.0.0.1/a.png", ""),
    ],
)
def test_faults_of_the_mask_name_the_field(
    settings: WorkerSettings, storage: Storage, mask: str, fault: str
) -> None:
    with pytest.raises((FetchError, ImageError), match=rf"^mask_image_url: .*{fault}"):
        prepare(inpainting(mask_image_url=mask), settings, storage)


def test_window_is_a_share_of_the_steps_that_are_done(settings: WorkerSettings, storage: Storage) -> None:
    chosen = {"loras": [{"path": CONTROLNET_2_1}], "control_end": 0.4}
    assert prepare(inpainting(**chosen), settings, storage).job.is_controlled
    job, *_ = prepare(inpainting(**chosen, strength=0.25), settings, storage)
    assert not job.is_controlled
    assert "No whole step of 2 lies between" in job.warnings[1]


def test_seed_minus_one_is_drawn(settings: WorkerSettings, storage: Storage) -> None:
    drawn = {prepare(asked(seed=-1), settings, storage)[0].seed for _ in range(5)}
    assert len(drawn) > 1
    assert all(0 <= seed < 2**32 for seed in drawn)
    assert prepare(asked(seed=0), settings, storage)[0].seed == 0


def test_faults_of_the_image_name_the_field(settings: WorkerSettings, storage: Storage) -> None:
    with pytest.raises(ImageError, match=r"^image_url: this is no picture"):
        prepare(asked(image_url="data:text/plain;base64,aGVsbG8="), settings, storage)
    with pytest.raises(FetchError, match=r"^image_url: "):
        prepare(asked(image_url="http://127.0.0.1/a.png"), settings, storage)
    with pytest.raises(SizeError, match=r"^image_size: "):
        prepare(asked(image_url=picture_uri(1000, 10)), settings, storage)


@pytest.mark.parametrize(
    ("output_format", "pillow_format"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")]
)
def test_finished_picture_is_kept_in_the_format_asked_for(
    settings: WorkerSettings, storage: Storage, output_format: str, pillow_format: str
) -> None:
    request = asked(output_format=output_format, seed=5)
    job, *_ = prepare(request, settings, storage)
    image = np.full((job.height, job.width, 3), 99, np.uint8)
    facts = Facts(model="demo", seeds=(5,), prompt="a fox", timings={"denoise": 0.5})
    made = Generated((image,), None, facts)
    output = finish(MODEL, request.model_dump(mode="json"), job, made, FILE_IDS, settings, storage)
    facts = output["image"]
    data = storage.read(facts["file_id"], facts["name"])
    assert data is not None
    assert (facts["size"], facts["content_type"]) == (len(data), f"image/{output_format}")
    assert (facts["width"], facts["height"]) == (WIDTH, HEIGHT)
    with Image.open(io.BytesIO(data)) as kept:
        assert (kept.format, kept.size) == (pillow_format, (WIDTH, HEIGHT))
    assert (output["seed"], output["timings"], output["model"]) == (5, {"denoise": 0.5}, "demo")
    assert not {"images", "seeds", "control_image"} & set(output)
    made = read_metadata(data)["zturbo"]
    assert (made["seed"], made["request"]["image_url"]) == (5, f"sha256:{IMAGE_SHA256}")


def test_each_of_several_pictures_is_a_file_that_says_its_own_seed(
    settings: WorkerSettings, storage: Storage
) -> None:
    request = asked(num_images=2, seed=5)
    job, control, _ = prepare(request, settings, storage)
    assert job.seeds == (5, 6)
    made = Generated((control, control), None, Facts(model="demo", seeds=job.seeds, prompt="a fox"))
    file_ids = {"image-1": "1" * 32, "image-2": "2" * 32, "control_image": "3" * 32}
    output = finish(MODEL, request.model_dump(mode="json"), job, made, file_ids, settings, storage)
    assert [image["file_id"] for image in output["images"]] == ["1" * 32, "2" * 32]
    assert (output["seed"], output["seeds"]) == (5, [5, 6])
    for image, seed in zip(output["images"], job.seeds, strict=True):
        data = storage.read(image["file_id"], image["name"])
        assert data is not None
        assert read_metadata(data)["zturbo"]["seed"] == seed


def test_seeds_begin_again_at_zero_past_the_largest(settings: WorkerSettings, storage: Storage) -> None:
    job, *_ = prepare(asked(num_images=3, seed=2**63 - 2), settings, storage)
    assert job.seeds == (2**63 - 2, 2**63 - 1, 0)


def test_metadata_can_be_left_out(settings: WorkerSettings, storage: Storage) -> None:
    bare = settings.model_copy(update={"embed_metadata": False})
    request = asked()
    job, control, _ = prepare(request, bare, storage)
    made = Generated((control,), None, Facts(model="demo", seeds=(0,), prompt="a fox"))
    output = finish(MODEL, request.model_dump(mode="json"), job, made, FILE_IDS, bare, storage)
    data = storage.read(output["image"]["file_id"], output["image"]["name"])
    assert data is not None
    assert b"a fox" not in data
