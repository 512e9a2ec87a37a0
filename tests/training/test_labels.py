"""What the transformer's middle layer is asked while it trains."""

import torch

from training import flow
from training.labels import CELL, CellProbe, cell_labels, thing_weights
from training.presets import CPU
from training.render import render
from training.scenes import sample_scene
from training.text_encoder import WIDTH
from training.vocabulary import COLOURS, OBJECTS


def labels_of(seed: int) -> torch.Tensor:
    scene = sample_scene(seed)
    return torch.from_numpy(cell_labels(scene, render(scene, 128, 96)))[None]


def test_cells_tell_kind_and_colour_where_a_thing_is_seen() -> None:
    scene = sample_scene(3, pairs=1)
    rendering = render(scene, 128, 96)
    labels = cell_labels(scene, rendering)
    assert labels.shape == (2, 96 // CELL, 128 // CELL)
    for thing, mask in zip(scene.things, rendering.masks, strict=True):
        seen = mask[CELL // 2 :: CELL, CELL // 2 :: CELL]
        assert (labels[0][seen] == 1 + list(OBJECTS).index(thing.kind)).all()
        assert (labels[1][seen] == 1 + list(COLOURS).index(thing.colour)).all()
    covered = rendering.masks.any(0)[CELL // 2 :: CELL, CELL // 2 :: CELL]
    assert not labels[:, ~covered].any()


def test_weights_are_1_on_average_and_favour_things_where_there_is_little_noise() -> None:
    labels = labels_of(3).expand(2, -1, -1, -1)
    weights = thing_weights(labels, torch.tensor([0.0, 1.0]))
    assert weights.shape == (2, 1, 6, 8)
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))
    assert weights[0].max() > 2 * weights[0].min()
    assert weights[1].max() == weights[1].min()


def test_probe_reads_the_middle_layer_and_its_answers_can_be_learned() -> None:
    torch.manual_seed(0)
    transformer = flow.build_transformer(CPU)
    probe = CellProbe(transformer)
    captions = flow.Captions(torch.randn(1, 32, WIDTH).bfloat16(), torch.tensor([20]))
    latents = torch.randn(1, 16, 6, 8)
    labels = labels_of(3)
    ropes = flow.TableCache(transformer)(captions, latents)
    optimizer = torch.optim.AdamW([*transformer.parameters(), *probe.parameters()], 3e-3)
    losses = []
    for _ in range(8):
        flow.velocity(transformer, latents, torch.ones(1), captions, ropes)
        loss = probe.loss(labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
