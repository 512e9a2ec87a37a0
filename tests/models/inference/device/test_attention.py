"""The order in which attention kernels are tried, and that what the first cannot do is still done."""

from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters
from torch.nn.functional import scaled_dot_product_attention

from models.inference.device.attention import preferring
from tests.support.kept_code import keeping_graphs


def test_preferred_kernel_that_this_device_lacks_leaves_the_result_as_it_is() -> None:
    query, key, value = torch.randn(3, 1, 2, 8, 16)
    plain = scaled_dot_product_attention(query, key, value)
    for attention in ("auto", "cudnn"):
        with preferring(attention):
            assert torch.equal(scaled_dot_product_attention(query, key, value), plain)


def test_cudnn_comes_first_within_and_the_order_is_put_back() -> None:
    before = torch._C._get_sdp_priority_order()
    with preferring("cudnn"):
        assert torch._C._get_sdp_priority_order()[0] == torch.nn.attention.SDPBackend.CUDNN_ATTENTION.value
    assert torch._C._get_sdp_priority_order() == before


def test_code_that_was_compiled_for_one_order_is_not_loaded_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attend = torch.compile(lambda x: scaled_dot_product_attention(x, x, x), dynamic=True)
    query = torch.randn(1, 2, 8, 16)
    loaded = []
    with keeping_graphs(tmp_path, monkeypatch), torch.no_grad():
        for attention in ("auto", "cudnn", "auto", "cudnn"):
            torch._dynamo.reset()
            counters.clear()
            with preferring(attention):
                attend(query)
            loaded.append(counters["aot_autograd"]["autograd_cache_hit"])
    assert loaded == [0, 0, 1, 1]
