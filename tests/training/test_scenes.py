"""Scenes come from seeds alone, keep the held-out combinations out, and their maps fit their pictures."""

import cv2
import numpy as np
import pytest

from training.captions import brief_caption, caption, is_of_this_world, placeless_caption
from training.maps import CONTROLS, canny_map, control_map, pose_map
from training.render import render
from training.scenes import sample_scene
from training.styles import STYLES, stylize
from training.vocabulary import COLOURS, HELD_OUT_SEEDS, OBJECTS, PLACES, POSES, colour_array, held_out_pairs


def test_same_seed_gives_the_same_pixels_and_words() -> None:
    for seed in range(5):
        first, second = (render(sample_scene(seed), 128, 128) for _ in range(2))
        assert np.array_equal(first.image, second.image)
        words = [caption(sample_scene(seed), np.random.default_rng(3)) for _ in range(2)]
        assert words[0] == words[1]


def test_each_colour_and_each_object_is_held_out_once() -> None:
    pairs = held_out_pairs()
    assert {colour for colour, _ in pairs} == set(COLOURS)
    assert {kind for _, kind in pairs} == set(OBJECTS)


def test_training_scenes_never_show_a_held_out_combination_and_measured_ones_do() -> None:
    for seed in range(400):
        shown = {(thing.colour, thing.kind) for thing in sample_scene(seed).things}
        assert not shown & held_out_pairs()
        thing = sample_scene(HELD_OUT_SEEDS + seed, held_out=True).things[0]
        assert (thing.colour, thing.kind) in held_out_pairs()


def test_caption_names_colour_and_object_of_everything_in_the_scene() -> None:
    for seed in range(100):
        scene = sample_scene(seed)
        words = caption(scene, np.random.default_rng(seed))
        for thing in scene.things:
            assert thing.colour in words
            assert any(noun in words for noun in OBJECTS[thing.kind])
        assert scene.things[0].colour in brief_caption(scene, np.random.default_rng(seed))


def test_what_is_said_beside_a_map_leaves_place_size_and_pose_to_it() -> None:
    left_out = {phrase for table in (PLACES, POSES) for phrases in table.values() for phrase in phrases}
    for seed in range(100):
        scene = sample_scene(seed)
        words = placeless_caption(scene, np.random.default_rng(seed))
        assert is_of_this_world(words, scene.things[0])
        assert all(thing.colour in words for thing in scene.things)
        assert not any(phrase in words for phrase in left_out | {"small", "large", "big"})


def test_whole_captions_are_of_this_world_and_other_sentences_are_not() -> None:
    for seed in range(60):
        scene = sample_scene(seed)
        sentence = caption(scene, np.random.default_rng(seed), whole=True)
        assert all(is_of_this_world(sentence, thing) for thing in scene.things), sentence
        assert not is_of_this_world(f"{sentence}, a fox", scene.things[0])
        assert not is_of_this_world(brief_caption(scene, np.random.default_rng(seed)), scene.things[0])


@pytest.mark.parametrize("kind", list(OBJECTS))
def test_things_have_their_named_colour(kind: str) -> None:
    palette = colour_array()
    for seed in range(HELD_OUT_SEEDS, HELD_OUT_SEEDS + 4):
        scene = sample_scene(seed, kind=kind)
        rendering = render(scene, 128, 128)
        pixels = rendering.image[rendering.masks[0]].astype(np.float32) / 255
        shades = np.linspace(0.5, 1.1, 7, dtype=np.float32)[:, None]
        distance = np.square(pixels[:, None, None] - palette[:, None] * shades).sum(-1).min(-1)
        most = np.bincount(distance.argmin(1), minlength=len(palette)).argmax()
        assert list(COLOURS)[most] == scene.things[0].colour


@pytest.mark.parametrize(("width", "height"), [(128, 128), (176, 96), (112, 144), (256, 256)])
def test_maps_have_the_pictures_shape(width: int, height: int) -> None:
    rendering = render(sample_scene(3, figures=1, pairs=0), width, height)
    for control in CONTROLS:
        assert control_map(rendering, control).shape == (height, width, 3)
    for style in STYLES:
        assert stylize(rendering, style).shape == (height, width, 3)


def test_things_are_nearer_than_what_they_stand_before() -> None:
    rendering = render(sample_scene(1, pairs=0), 128, 128)
    thing = rendering.masks[0]
    top = int(np.flatnonzero(thing.any(1))[0])
    column = int(np.flatnonzero(thing[top])[0])
    assert rendering.depth[top, column] > rendering.depth[max(top - 2, 0), column]
    assert rendering.depth[-1].max() == 255
    assert rendering.depth[0].max() == 0


def test_joints_lie_on_the_figure() -> None:
    for seed in range(10):
        rendering = render(sample_scene(seed, figures=1, pairs=0), 128, 128)
        assert rendering.joints is not None
        near = cv2.dilate(rendering.masks[0].astype(np.uint8), np.ones((5, 5), np.uint8))
        x, y = rendering.joints.round().astype(int).clip(0, 127).T
        assert near[y, x].all()


def test_skeleton_has_openposes_colours_and_is_black_without_a_figure() -> None:
    joints = np.stack([np.linspace(20, 100, 18), np.linspace(110, 20, 18)], 1).astype(np.float32)
    drawn = pose_map(joints, 512, 512)
    scaled = pose_map(joints * 4, 512, 512)
    assert tuple(scaled[int(joints[0, 1] * 4), int(joints[0, 0] * 4)]) == (255, 0, 0)
    assert drawn.any()
    assert not pose_map(None, 128, 128).any()


def test_canny_is_the_servers_canny() -> None:
    from models.canny import canny

    image = render(sample_scene(2), 128, 128).image
    assert np.array_equal(canny_map(image), canny(image, 128, 128))
