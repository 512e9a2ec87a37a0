"""The order in which attention kernels are tried, and that what the first cannot do is still done."""

import torch
from torch.nn.functional import scaled_dot_product_attention

from models.inference.device.attention import preferring


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
