"""Magic Prompt alone: a prompt rewritten, by a language model's server or by the text encoder."""

from models.job import KeepGoing, OnStep
from models.prompt.expansion import Expansion
from models.prompt.server import expand_by_server
from worker.stages.task import Advance, Engine, Finish, Outcome, Task


class ExpansionTask(Task[Expansion]):
    """A request for a prompt. Where a server rewrites it no device is needed, and `prepare` finishes it."""

    def prepare(self, keep_going: KeepGoing) -> Outcome:
        if self._tools.settings.prompt_llm_url is None:
            return Advance("generate", {})
        return self.keep(expand_by_server(self._tools.settings, **self.record.input))

    def generate(self, engine: Engine, keep_going: KeepGoing, on_step: OnStep) -> Expansion:
        return engine.expand(**self.record.input, keep_going=keep_going)

    def keep(self, made: Expansion) -> Finish:
        return Finish({"expanded_prompt": made.prompt, "warning": made.warning})

    def finish(self) -> Finish:
        raise AssertionError("nothing is left to be done for a prompt once it is rewritten")
