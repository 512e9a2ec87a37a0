"""Several pictures of one job: each is what it is alone, and as far from the others as is asked for."""

import numpy as np
import pytest

from models.inference.denoise.pipeline import draw_noise
from models.inference.engine import Engine
from models.job import Job, Pixels, Step
from tests.models.inference.test_engine import SIZE, difference, generate


@pytest.mark.parametrize("seed_variance", [0.0, 0.3])
def test_pictures_of_one_job_are_what_each_is_alone(
    engine: Engine, job: Job, control: Pixels, seed_variance: float
) -> None:
    previews: list[Pixels] = []
    job = job.model_copy(update={"seed_variance": seed_variance})

    def look(step: Step) -> None:
        assert step.preview is not None
        previews.append(step.preview())

    made = engine.generate(job.model_copy(update={"num_images": 3}), control, look)
    assert made.facts.seeds == (1, 2, 3)
    alone = [generate(engine, job.model_copy(update={"seed": seed}), control) for seed in made.facts.seeds]
    for image, by_itself in zip(made.images, alone, strict=True):
        # A batch adds up in another order: a level of 255 here and there, no more.
        np.testing.assert_allclose(image.astype(int), by_itself.images[0], atol=1)
    assert difference(alone[0], alone[1]) > 1
    assert [preview.shape for preview in previews] == [(SIZE // 8, 3 * SIZE // 8, 3)] * 4


def test_seed_variance_alone_makes_pictures_of_the_same_noise_differ_the_more_the_larger_it_is(
    engine: Engine, job: Job, control: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "models.inference.engine.draw_noise", lambda seed, *shape: draw_noise(0, *shape), raising=True
    )
    distances = []
    for seed_variance in (0.0, 0.1, 0.5, 0.0):
        several = job.model_copy(update={"num_images": 3, "seed_variance": seed_variance})
        first, *others = (image.astype(int) for image in generate(engine, several, control).images)
        distances.append([np.abs(first - other).mean() for other in others])
    # The last: what is kept of the prompt for the next request is still the prompt's own.
    plain, subtle, strong, again = distances
    assert max(plain) == max(again) == 0 < min(subtle) <= max(subtle) < min(strong)
