import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

from models.command import zturbo
from models.errors import DiskFull, HubError, ModelError
from models.weights import download
from models.weights.hub import HubFile, Progress, cached_file, choose_file, list_files, repo_file
from tests.support.hub import HubStub, environment

WEIGHTS = os.urandom(3 * 2**20 + 17)
IMPORT = "from models.weights.hub import repo_file"
UNION = "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr("models.weights.hub.FIRST_PAUSE", 0.0)


@pytest.fixture
def style(hub: HubStub) -> str:
    return hub.add_repo("owner/style", {"style.safetensors": WEIGHTS, "README.md": b"# a style"})


def sentence(ask: Callable[[], object], kind: type[ModelError] = HubError) -> str:
    with pytest.raises(kind) as caught:
        ask()
    message = str(caught.value)
    assert "127.0.0.1" not in message
    assert "/tmp" not in message
    return message


def test_a_file_is_downloaded_once_and_found_again(hub: HubStub, style: str) -> None:
    found = repo_file("owner/style")
    assert found.path.read_bytes() == WEIGHTS
    assert (found.commit, found.filename) == (style, "style.safetensors")
    assert found.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert found.path.is_relative_to(constants.HF_HUB_CACHE)
    assert repo_file("owner/style", "style.safetensors") == found == cached_file("owner/style")
    assert len(hub.downloads("style.safetensors")) == 1


def test_small_text_files_come_too_and_have_no_sha256(hub: HubStub, style: str) -> None:
    found = repo_file("owner/style", "README.md")
    assert found.path.read_bytes() == b"# a style"
    assert found.sha256 is None


def test_progress_runs_from_nothing_to_the_whole_file(hub: HubStub, style: str) -> None:
    seen: list[Progress] = []
    repo_file("owner/style", on_progress=seen.append)
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, len(WEIGHTS))
    assert {progress.total for progress in seen} == {len(WEIGHTS)}
    assert len(done) > 3


def test_a_new_commit_replaces_the_cached_one(hub: HubStub, style: str) -> None:
    old = repo_file("owner/style")
    commit = hub.add_repo("owner/style", {"style.safetensors": b"new"})
    new = repo_file("owner/style")
    assert new.path.read_bytes() == b"new"
    assert new.commit == commit != old.commit


def test_a_cut_connection_is_resumed_where_it_broke(hub: HubStub, style: str) -> None:
    hub.cut("style.safetensors", after=2 * 2**20, times=2)
    hub._faults[0].match = "/owner/style/resolve/" + style  # the CDN's path, not the redirect's
    assert repo_file("owner/style").path.read_bytes() == WEIGHTS
    ranges = [request.headers.get("range") for request in hub.downloads("style.safetensors")]
    assert ranges[0] is None
    assert all(value and value.startswith("bytes=") and value != "bytes=0-" for value in ranges[1:])


def test_a_download_stopped_by_its_caller_goes_on_the_next_time(hub: HubStub, style: str) -> None:
    def stop(progress: Progress) -> None:
        if progress.done >= 2**20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repo_file("owner/style", on_progress=stop)
    assert cached_file("owner/style") is None
    first: list[Progress] = []
    assert repo_file("owner/style", on_progress=first.append).path.read_bytes() == WEIGHTS
    assert first[0].done >= 2**20
    assert hub.downloads("style.safetensors")[-1].headers["range"] == f"bytes={first[0].done}-"


def test_a_damaged_part_is_thrown_away_not_kept(hub: HubStub, style: str) -> None:
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    part = Path(constants.HF_HUB_CACHE) / "models--owner--style" / "blobs" / f"{sha256}.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    assert "arrived damaged" in sentence(lambda: repo_file("owner/style"))
    assert not part.exists()
    assert repo_file("owner/style").path.read_bytes() == WEIGHTS


def test_a_busy_hub_is_asked_again(hub: HubStub, style: str) -> None:
    hub.fail(503, "/api/", times=2)
    hub.fail(502, "style.safetensors", times=2)
    assert repo_file("owner/style").path.read_bytes() == WEIGHTS


@pytest.mark.parametrize("status", [500, 503, 429, 403])
def test_a_hub_that_keeps_failing_is_named_with_its_status(hub: HubStub, style: str, status: int) -> None:
    hub.fail(status)
    assert sentence(lambda: repo_file("owner/style")) == (
        f"The hub answered {status} when asked for owner/style; try again later."
    )


@pytest.mark.parametrize("token", [None, "hf_some"])
def test_unknown_repository(hub: HubStub, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    assert sentence(lambda: repo_file("no/such")) == (
        "The hub has no repository no/such, or it is private and HF_TOKEN does not open it."
    )


def test_unknown_file_is_refused_with_the_files_there_are(hub: HubStub, style: str) -> None:
    assert sentence(lambda: repo_file("owner/style", "other.safetensors")) == (
        "The hub repository owner/style has no file 'other.safetensors'; it has: style.safetensors."
    )


def test_gated_repository_asks_for_a_token_and_the_cdn_never_sees_it(
    hub: HubStub, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gate("owner/style", "hf_secret")
    assert "is gated: accept its terms" in sentence(lambda: repo_file("owner/style"))
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "hf_wrong" not in sentence(lambda: repo_file("owner/style"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert repo_file("owner/style").path.read_bytes() == WEIGHTS
    assert any(request.cdn for request in hub.requests)
    assert not any("authorization" in request.headers for request in hub.requests if request.cdn)


def test_without_a_network_the_cache_answers(hub: HubStub, style: str) -> None:
    found = repo_file("owner/style")
    hub.close()
    assert repo_file("owner/style") == found
    assert sentence(lambda: repo_file("owner/other")) == (
        "The hub cannot be reached from this server to fetch owner/other, and it is not in the cache."
    )


def test_offline_the_cache_answers_and_nothing_is_asked(
    hub: HubStub, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = repo_file("owner/style")
    asked = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert repo_file("owner/style", "style.safetensors") == found
    assert sentence(lambda: repo_file("owner/other")) == (
        "owner/other is not on this machine, and HF_HUB_OFFLINE forbids to fetch it: "
        f"run `{zturbo()} pull owner/other` with a network."
    )
    assert len(hub.requests) == asked


def test_a_file_over_the_limit_is_refused_before_a_byte_of_it(hub: HubStub, style: str) -> None:
    message = sentence(lambda: repo_file("owner/style", max_bytes=2_000_000))
    assert message == "owner/style/style.safetensors has 3.1 MB; at most 2.0 MB are taken."
    assert not hub.downloads("style.safetensors")


def test_a_full_disk_is_told_before_the_download(
    hub: HubStub, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.disk.FLOOR_BYTES", 10**18)
    told = sentence(lambda: repo_file("owner/style"), DiskFull)
    assert told.startswith("The disk of the Hugging Face cache (HF_HOME) has ")
    assert not hub.downloads("style.safetensors")


def test_a_download_stops_when_others_have_filled_the_disk_and_goes_on_later(
    hub: HubStub, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(progress: Progress) -> None:
        if progress.done >= 2**20:
            monkeypatch.setattr("models.disk.FLOOR_BYTES", 10**18)

    sentence(lambda: repo_file("owner/style", on_progress=fill), DiskFull)
    monkeypatch.setattr("models.disk.FLOOR_BYTES", 0)
    assert repo_file("owner/style").path.read_bytes() == WEIGHTS
    assert hub.downloads("style.safetensors")[-1].headers["range"].startswith("bytes=1")


@pytest.mark.parametrize("repo_id", ["..", "a/..", "../a", "a", "a/b/c", "a--b/c", "a/b\n", "", "/a/b"])
def test_what_is_no_repository_id_is_never_asked_for(hub: HubStub, repo_id: str) -> None:
    sentence(lambda: repo_file(repo_id))
    assert hub.requests == []


@pytest.mark.parametrize(
    "filename", ["../x.safetensors", "/x.safetensors", "a/../../x", ".x", "a\\b", "a//b"]
)
def test_what_is_no_plain_file_name_is_never_asked_for(hub: HubStub, filename: str) -> None:
    sentence(lambda: repo_file("owner/style", filename))
    assert hub.requests == []


def test_many_at_once_download_a_file_once(hub: HubStub, style: str) -> None:
    hub.slow(f"resolve/{style}", 0.002)
    found: list[HubFile] = []
    threads = [threading.Thread(target=lambda: found.append(repo_file("owner/style"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    child = subprocess.run(
        [sys.executable, "-c", f"{IMPORT}; print(repo_file('owner/style').path)"],
        env=os.environ | environment(hub, Path(constants.HF_HOME)),
        capture_output=True,
        text=True,
        check=True,
    )
    for thread in threads:
        thread.join()
    assert {file.path for file in found} == {Path(child.stdout.strip())}
    assert len(found) == 4
    assert len(hub.downloads("style.safetensors")) == 1


def test_one_who_waits_for_anothers_download_sees_progress_and_may_leave(hub: HubStub, style: str) -> None:
    hub.slow(f"resolve/{style}", 0.05)
    busy = threading.Event()
    first = threading.Thread(target=lambda: repo_file("owner/style", on_progress=lambda _: busy.set()))
    first.start()
    assert busy.wait(10)

    def leave(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repo_file("owner/style", on_progress=leave)
    assert first.is_alive()
    first.join()
    assert len(hub.downloads("style.safetensors")) == 1


def test_a_killed_process_leaves_a_part_that_the_next_one_goes_on_from(hub: HubStub, style: str) -> None:
    hub.slow(f"resolve/{style}", 0.05)
    child = subprocess.Popen(
        [sys.executable, "-c", f"{IMPORT}; repo_file('owner/style', None, print)"],
        env=os.environ | environment(hub, Path(constants.HF_HOME)) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    while b"done=0" in (line := child.stdout.readline()):
        assert line
    child.kill()
    child.wait()
    child.stdout.close()
    hub.heal()
    assert repo_file("owner/style").path.read_bytes() == WEIGHTS
    begin = hub.downloads("style.safetensors")[-1].headers["range"].removeprefix("bytes=").removesuffix("-")
    assert int(begin) >= 2**20


def test_huggingface_hub_takes_a_whole_repository_from_the_stub(hub: HubStub, style: str) -> None:
    folder = Path(snapshot_download("owner/style", endpoint=hub.url))
    assert (folder / "style.safetensors").read_bytes() == WEIGHTS
    assert (folder / "README.md").read_bytes() == b"# a style"
    assert repo_file("owner/style").path == folder / "style.safetensors"


def test_listing_tells_commit_sizes_and_hashes(hub: HubStub, style: str) -> None:
    listing = list_files("owner/style")
    assert listing.commit == style
    assert listing.files["style.safetensors"].size == len(WEIGHTS)
    assert listing.files["style.safetensors"].sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert listing.files["README.md"].sha256 is None


def test_the_only_checkpoint_is_chosen() -> None:
    assert choose_file("owner/style", ["README.md", "a.safetensors"]) == "a.safetensors"


def test_of_a_controlnets_files_the_newest_full_8_steps_one_is_chosen() -> None:
    names = [
        f"Z-Image-Turbo-Fun-Controlnet-{name}.safetensors"
        for name in (
            "Union-2.1",
            "Union-2.1-8steps",
            "Union-2.1-2601-8steps",
            "Union-2.1-2602-8steps",
            "Union-2.1-lite-2601-8steps",
            "Union-2.1-lite-2603-8steps",
            "Tile-2.1-2603-8steps",
        )
    ]
    for repo_id in (UNION + "-2.1", UNION + "-2.0", (UNION + "-2.1").upper()):
        assert choose_file(repo_id, names) == names[3]
    assert choose_file(UNION + "-2.1", names[:2]) == names[1]


def test_several_loras_in_one_repository_must_be_told_apart() -> None:
    message = sentence(lambda: choose_file("owner/style", [f"{i:02}.safetensors" for i in range(20)]))
    assert message.startswith("The hub repository owner/style has several .safetensors files; name one as ")
    assert message.endswith("10.safetensors, 11.safetensors and 8 more.")


def test_a_repository_without_a_checkpoint_says_so() -> None:
    assert "has no .safetensors file" in sentence(lambda: choose_file("owner/x", ["pytorch_model.bin"]))
