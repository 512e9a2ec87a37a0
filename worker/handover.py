"""What the generate stage leaves for the finish stage: the pictures' facts as JSON, their pixels by name.

The names of pixels and of the files they become are those of `image_stems`, and `control_image`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from models.job import AppliedLora, Picture, Pixels
from worker.stages.picture import image_stems
from worker.storage.pictures import new_file_id


def facts_of(pictures: Sequence[Picture]) -> dict[str, Any]:
    """Everything about the pictures of one job but their pixels."""
    picture = pictures[0]
    return {
        "model": picture.model,
        "seed": picture.seed,
        "seeds": [each.seed for each in pictures],
        "prompt": picture.prompt,
        "expanded_prompt": picture.expanded_prompt,
        "controlnet": picture.controlnet,
        "loras": [lora.model_dump() for lora in picture.loras],
        "timings": picture.timings,
        "warnings": list(picture.warnings),
        # Drawn before the finish stage, so that one which is done twice leaves its files once.
        "file_ids": {stem: new_file_id() for stem in (*image_stems(len(pictures)), "control_image")},
    }


def pictures_of(facts: dict[str, Any], load: Callable[[str], Pixels]) -> list[Picture]:
    """The pictures again; `load` gives the pixels that were kept under a name."""
    control_image = load(facts["control_image"]) if "control_image" in facts else None
    # Version 1 knew one picture.
    seeds = facts.get("seeds") or [facts["seed"]]
    return [
        Picture(
            image=load(facts[stem]),
            model=facts["model"],
            seed=seed,
            prompt=facts["prompt"],
            expanded_prompt=facts["expanded_prompt"],
            control_image=control_image,
            controlnet=facts["controlnet"],
            loras=tuple(AppliedLora.model_validate(lora) for lora in facts["loras"]),
            timings=facts["timings"],
            warnings=tuple(facts["warnings"]),
        )
        for stem, seed in zip(image_stems(len(seeds)), seeds, strict=True)
    ]
