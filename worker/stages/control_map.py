"""A control map alone: what would guide a picture, for somebody who wants to see it before the run."""

from typing import Protocol

from models.canny import canny, fit
from models.job import OnStep, Pixels, Preprocess
from models.schema.inputs import PreprocessInput
from worker.config import WorkerSettings
from worker.inputs.decode import read_image
from worker.inputs.input_image import read_source
from worker.stages.output import keep_control
from worker.stages.size import drawn_size
from worker.stages.task import Advance, Engine, Finish, KeepGoing, Task
from worker.storage.pictures import new_file_id


class ControlMapTask(Task[Pixels]):
    """A request for the depth or pose map of an image; canny needs no device and so no task."""

    def prepare(self, keep_going: KeepGoing) -> Advance:
        tools, record = self._tools, self.record
        asked = PreprocessInput.model_validate(tools.workspace.attach_image(record.id, record.input))
        image = read_source(asked.image_url, "image_url", tools.settings, tools.storage)
        source = control_source(image, asked, tools.settings)
        return Advance("generate", {"control": tools.workspace.save(record.id, self._token, source)})

    def generate(self, engine: Engine, keep_going: KeepGoing, on_step: OnStep) -> Pixels:
        source = self._tools.workspace.load(self.record.id, self.record.prepared["control"])
        return engine.control_map(self.record.input["preprocess"], source)

    def keep(self, made: Pixels) -> Advance:
        name = self._tools.workspace.save(self.record.id, self._token, made)
        return Advance("finish", {"control_image": name, "file_ids": {"control_image": new_file_id()}})

    def finish(self) -> Finish:
        kept = self.record.generated
        control_image = self._tools.workspace.load(self.record.id, kept["control_image"])
        file_id = kept["file_ids"]["control_image"]
        return Finish({"control_image": keep_control(control_image, file_id, self._tools.storage)})


class ControlInput(Protocol):
    """The fields of an input that tell how an image guides the picture."""

    @property
    def preprocess(self) -> Preprocess: ...

    @property
    def image_size(self) -> str: ...


def control_source(image: bytes, asked: ControlInput, settings: WorkerSettings) -> Pixels:
    """The image at the output's size, for canny its map; for depth and pose the engine makes the map of it.

    `image` is the file that `image_url` stands for. Raises ImageError and SizeError.
    """
    source = read_image(image, "image_url")
    width, height = drawn_size(asked.image_size, (source.shape[1], source.shape[0]), settings)
    return (canny if asked.preprocess == "canny" else fit)(source, width, height)
