"""The loop: every clip once, order and failures kept, nothing that was answered is lost."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from alm.captioning.inputs import list_clips
from alm.captioning.output import Output
from alm.captioning.run import HOPELESS, Limits, caption_clip, caption_clips, is_current
from alm.chat.backend import BackendError, ClipError, Reply, Turn
from alm.data.example import DataError

GOOD = {
    "content": "sound",
    "speaker": "Nobody talks in it.",
    "environment": "It is outdoors and windy.",
    "music": "There is no music.",
    "events": "Rain falls all the time.",
}


class Scripted:
    """A backend that answers from a list, then well."""

    sampling_rate = 8_000

    def __init__(self, *replies: str | Exception) -> None:
        self.replies = list(replies)
        self.asked: list[list[Turn]] = []
        self.lengths: list[int] = []
        self.stopped = threading.Event()
        self.settings = {"backend": "scripted"}

    def ask(self, waveform: Any, turns: Sequence[Turn]) -> Reply:
        self.asked.append(list(turns))
        self.lengths.append(len(waveform))
        reply = self.replies.pop(0) if self.replies else json.dumps(GOOD)
        if isinstance(reply, Exception):
            raise reply
        return Reply(reply, 10, 5, cut=reply.endswith("…"))

    def stop(self) -> None:
        self.stopped.set()


def open_log(output: Output, **settings: Any) -> Any:
    return output.open_log(settings, is_done=lambda row: True)


def test_a_bad_reply_is_asked_for_again_with_the_reason(clips: Path, tmp_path: Path) -> None:
    (clip, *_) = list_clips([clips], tmp_path / "out.csv")
    backend = Scripted(json.dumps({**GOOD, "events": None}))
    row = caption_clip(clip, backend, Limits())
    assert row["status"] == "done" and row["requests"] == 2 and row["prompt_tokens"] == 20 and row["seconds"] == 0.3
    first, bad, again = backend.asked[1]
    assert [first] == backend.asked[0] and (bad.role, again.role) == ("assistant", "user")
    assert '"events": null' in bad.text and '"events" is missing or empty' in again.text
    assert row["caption"] == "Rain falls all the time. It is outdoors and windy. Nobody talks in it. There is no music."


def test_after_the_last_attempt_it_is_a_failure_and_never_a_caption(clips: Path, tmp_path: Path) -> None:
    (clip, *_) = list_clips([clips], tmp_path / "out.csv")
    row = caption_clip(clip, Scripted("no", "", '{"speaker": "\ud800…'), Limits(retries=2))
    assert row["status"] == "failed" and "caption" not in row and row["requests"] == 3
    assert "no usable reply in 3 attempts" in row["reason"] and "breaks off" in row["reason"]
    assert "--max_new_tokens" in row["reason"]
    json.dumps(row, ensure_ascii=False).encode()  # the log can hold it


def test_only_the_beginning_is_heard_where_asked(clips: Path, tmp_path: Path) -> None:
    backend = Scripted()
    *_, clip = list_clips([clips], tmp_path / "out.csv")
    row = caption_clip(clip, backend, Limits(max_seconds=0.5))
    assert backend.lengths == [4_000] and row["cut"] and row["seconds"] == 0.5
    assert "0.5 seconds" in backend.asked[0][0].text


def test_unreadable_clips_are_failures_with_a_reason_and_a_limit(clips: Path, tmp_path: Path) -> None:
    (clips / "3.wav").write_text("no audio")
    (clips / "4.wav").unlink()
    (clips / "list.txt").write_text("\n".join(str(clips / f"{n}.wav") for n in (5, 3, 4, 0, 1)))
    sources = list_clips([clips / "list.txt"], tmp_path / "out.csv")
    output = Output(tmp_path / "out.csv")
    with open_log(output) as log:
        caption_clips(sources, Scripted(), log, Limits(max_failures=0.4), progress=False)
        counts = output.write(sources, log.rows, {})
    assert (counts["captioned"], counts["failed"], counts["requests"]) == (3, 2, 3)
    failed = (tmp_path / "out.failed.csv").read_text()
    assert "audio/3.wav: not an audio file" in failed.replace(str(tmp_path) + "/", "") and "no such file" in failed
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["file_name", "audio/5.wav", "audio/0.wav", "audio/1.wav"]
    with (
        open_log(output) as log,
        pytest.raises(DataError, match=r"2 of 5 clips failed, over the limit of 20%.*out.items.jsonl"),
    ):
        caption_clips(sources, Scripted(), log, Limits(max_failures=0.2), progress=False)


def test_a_model_that_never_makes_it_is_given_up_early(clips: Path, tmp_path: Path) -> None:
    names = [clips / f"{n}.missing.wav" for n in range(1_000)]
    (clips / "list.txt").write_text("\n".join(map(str, names)))
    sources = list_clips([clips / "list.txt"], tmp_path / "out.csv")
    with open_log(Output(tmp_path / "out.csv")) as log, pytest.raises(DataError, match="and none was captioned"):
        caption_clips(sources, Scripted(), log, Limits(max_failures=0.5), progress=False)
    assert len(log.rows) == HOPELESS


@pytest.mark.parametrize("workers", [1, 3])
def test_what_was_answered_is_logged_before_the_run_stops(clips: Path, tmp_path: Path, workers: int) -> None:
    together = threading.Barrier(workers)

    class Dying(Scripted):
        def ask(self, waveform: Any, turns: Sequence[Turn]) -> Reply:
            if len(self.asked) < workers:
                together.wait(5)
            with lock:
                number = len(self.asked)
                reply = super().ask(waveform, turns)
            if number == workers:
                raise BackendError("gone")
            return reply

    lock, backend = threading.Lock(), Dying()
    sources = list_clips([clips], tmp_path / "out.csv")
    with open_log(Output(tmp_path / "out.csv")) as log:
        with pytest.raises(BackendError, match="gone"):
            caption_clips(sources, backend, log, Limits(workers=workers), progress=False)
        assert len(log.rows) == len(backend.asked) - 1 >= workers and backend.stopped.is_set()
        again = Scripted()
        caption_clips(sources, again, log, Limits(workers=workers), progress=False)
    assert len(again.asked) == len(sources) - (len(backend.asked) - 1)


def test_a_clip_the_server_refuses_does_not_stop_the_others(clips: Path, tmp_path: Path) -> None:
    sources = list_clips([clips], tmp_path / "out.csv")
    with open_log(Output(tmp_path / "out.csv")) as log:
        caption_clips(sources, Scripted(ClipError("too long")), log, Limits(max_failures=0.2), progress=False)
    assert [row["status"] for row in log.rows.values()] == ["failed"] + ["done"] * 5


def test_a_log_of_other_settings_is_not_thrown_away_by_a_slip(clips: Path, tmp_path: Path) -> None:
    output = Output(tmp_path / "out.csv")
    sources = list_clips([clips], output.table)
    with open_log(output, model="a", temperature=0) as log:
        caption_clips(sources, Scripted(), log, Limits(), progress=False)
    with pytest.raises(DataError, match=r"other settings \(model 'a' then, 'b' now\).*--overwrite"):
        open_log(output, model="b", temperature=0)
    log = output.open_log({"model": "b"}, is_done=lambda row: True, overwrite=True)
    assert not log.rows and (tmp_path / "out.items.jsonl.old").exists()
    with pytest.raises(DataError, match=r"ends with \.csv"):
        Output(tmp_path / "out.json")


def test_another_file_under_the_same_name_is_another_clip(clips: Path, tmp_path: Path) -> None:
    (clip, *_) = list_clips([clips], tmp_path / "out.csv")
    row = caption_clip(clip, Scripted(), Limits())
    assert is_current(row, clip)
    clip.path.write_bytes(clip.path.read_bytes() + b"\0")
    assert not is_current(row, clip)
