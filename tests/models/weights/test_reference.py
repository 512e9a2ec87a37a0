from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.weights.reference import (
    HubReference,
    LocalReference,
    Reference,
    ReferenceFault,
    UrlReference,
    read_reference,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h/x.safetensors?a=1", UrlReference("https://h/x.safetensors?a=1")),
        ("owner/repo", HubReference("owner/repo", None)),
        ("owner/repo-2.1", HubReference("owner/repo-2.1", None)),
        ("owner/repo/a.safetensors", HubReference("owner/repo", "a.safetensors")),
        ("owner/repo/sub/a b.safetensors", HubReference("owner/repo", "sub/a b.safetensors")),
        ("owner/repo:a", HubReference("owner/repo", "a.safetensors")),
        ("owner/repo:sub/a.safetensors", HubReference("owner/repo", "sub/a.safetensors")),
        ("style", LocalReference("style.safetensors")),
        ("style-2.1", LocalReference("style-2.1.safetensors")),
        ("風景 (v2).safetensors", LocalReference("風景 (v2).safetensors")),
        ("anime/style.safetensors", LocalReference("anime/style.safetensors")),
    ],
)
def test_known_forms(text: str, expected: Reference) -> None:
    assert read_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "../x.safetensors",
        "a/../b.safetensors",
        "/etc/passwd",
        "/etc/x.safetensors",
        "~/x.safetensors",
        ".hidden",
        "a\\b",
        "C:\\x.safetensors",
        "a/b/",
        "a//b",
        "a/b/c.bin",
        "a/b:",
        "a:b",
        "owner--x/repo",
        "owner/re..po",
        "file:///x.safetensors",
        "https://",
        "a\nb",
        "x" * 300,
        "é" * 150,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ReferenceFault):
        read_reference(text)


@given(st.text() | st.text("./:\\~a\0-", max_size=12))
def test_no_name_leaves_its_folder(text: str) -> None:
    try:
        reference = read_reference(text)
    except ReferenceFault:
        return
    match reference:
        case HubReference(repo_id, filename):
            names = [repo_id, filename or "x"]
        case LocalReference(name):
            names = [name]
        case UrlReference():
            names = []
    for name in names:
        assert not PurePosixPath(name).is_absolute()
        assert not {"", ".", ".."} & set(name.split("/"))
        assert "\\" not in name
