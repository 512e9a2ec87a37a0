"""English sentences for a scene, worded in many ways; what a sentence leaves out the picture may choose."""

from collections.abc import Iterable
from functools import cache

import numpy as np

from training.scenes import Scene, Thing, pick
from training.vocabulary import COLOURS, GROUNDS, OBJECTS, PLACES, POSES, SKIES

_OPENERS = ("", "", "", "", "a picture of ", "a photo of ", "there is ", "we see ", "a render of ")

_FILLERS = (
    "with a soft shadow", "seen from the front", "a simple scene", "high quality", "sharp focus", "3d render",
    "clean colours", "very detailed", "soft light", "nothing else in the picture",
)  # fmt: skip


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _noun_phrase(thing: Thing, rng: np.random.Generator) -> str:
    noun = pick(rng, OBJECTS[thing.kind])
    size = f"{thing.size if thing.size != 'large' or rng.random() < 0.6 else 'big'} " if thing.size else ""
    form = rng.random()
    if form < 0.8:
        phrase = _article(f"{size}{thing.colour} {noun}")
    elif form < 0.9:
        phrase = f"{_article(f'{size}{noun}')} in {thing.colour}"
    else:
        phrase = _article(f"{size}{noun} that is {thing.colour}")
    return f"{phrase} {pick(rng, POSES[thing.pose])}" if thing.pose else phrase


def _subject(scene: Scene, rng: np.random.Generator) -> str:
    phrases = [_noun_phrase(thing, rng) for thing in scene.things]
    if len(phrases) == 1:
        return phrases[0] if rng.random() < 0.2 else f"{phrases[0]} {pick(rng, PLACES[scene.place])}"
    left, right = phrases
    if rng.random() < 0.25:
        return f"{right} to the right of {left}"
    return f"{left} {pick(rng, ('and', 'and', 'next to', 'beside', 'to the left of'))} {right}"


def caption(scene: Scene, rng: np.random.Generator, *, whole: bool = False, fillers: int = 0) -> str:
    """One sentence without its full stop; a tenth each leave out ground or sky, unless `whole`.

    `fillers` phrases that say nothing of the scene follow, as prompts that people write have them.
    """
    subject = pick(rng, _OPENERS) + _subject(scene, rng)
    ground = pick(rng, GROUNDS[scene.ground]) if whole or rng.random() < 0.9 else ""
    sky = pick(rng, SKIES[scene.sky]) if whole or rng.random() < 0.9 else ""
    light = ""
    if rng.random() < 0.3:
        light = f"lit from the {'left' if scene.light < 0 else 'right'}"
    sky_first = bool(sky) and rng.random() < 0.2
    parts = [f"{sky},", subject, ground] if sky_first else [subject, ground, sky]
    text = " ".join(part for part in parts if part)
    extra = [_FILLERS[at] for at in rng.permutation(len(_FILLERS))[:fillers]]
    text = ", ".join(part for part in (text, light, *extra) if part)
    return text[0].upper() + text[1:] if rng.random() < 0.3 else text


def is_of_this_world(sentence: str, thing: Thing) -> bool:
    """Whether a sentence has captions' words alone, names the thing and its colour, and says on what ground
    and under what sky it stands.
    """
    words = sentence.lower().replace(",", " ").replace(".", " ").split()
    text = f" {' '.join(words)} "

    def said(phrases: Iterable[str]) -> bool:
        return any(f" {phrase} " in text for phrase in phrases)

    return (
        set(words) <= _known_words()
        and said(OBJECTS[thing.kind])
        and said([thing.colour])
        and said(phrase for phrases in GROUNDS.values() for phrase in phrases)
        and said(phrase for phrases in SKIES.values() for phrase in phrases)
    )


@cache
def _known_words() -> frozenset[str]:
    tables = (OBJECTS, GROUNDS, SKIES, POSES, PLACES)
    phrases = [phrase for table in tables for choices in table.values() for phrase in choices]
    joining = "small large big a an in that is and next to beside of the left right lit from"
    return frozenset(" ".join([*phrases, *COLOURS, *_OPENERS, *_FILLERS, joining]).split())


def placeless_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A sentence that names things, ground and sky, and leaves place, size and pose to a control map, as
    people do who have one.
    """
    things = [_article(f"{thing.colour} {pick(rng, OBJECTS[thing.kind])}") for thing in scene.things]
    return f"{' and '.join(things)} {pick(rng, GROUNDS[scene.ground])} {pick(rng, SKIES[scene.sky])}"


def brief_caption(scene: Scene, rng: np.random.Generator) -> str:
    """The first thing alone, in few words: what a caption is expanded from."""
    return _noun_phrase(scene.things[0], rng)
