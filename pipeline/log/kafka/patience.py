"""How long one waits for a partition's answer, and for how long a silent one is not asked again.

Whoever drives several shards in one loop must not wait for the partition of one of them. An impatient log waits for a
moment, once. From then on whoever asks that partition is told at once that there is no answer, while a thread asks in
his place. He asks again himself when that thread was answered and a pause is over that doubles with each failure.
Nobody is given an answer to another's question: answers are only news of who answers.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from pipeline.codec.topics import TopicPartition
from pipeline.errors import HauptbuchError, Retryable

REQUEST_S: Final = 10.0
_BRIEF_S: Final = 0.25
"""How long one waits at least where nothing is known of how long answers take, but that there was none."""
_SLOW: Final = 2.0
"""Answers may take that many times as long as the one before."""
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 4.0

T = TypeVar("T")


@dataclass(slots=True)
class _Silence:
    """Of one partition. Times are of the monotonic clock, in seconds."""

    since_s: float
    error: Retryable
    pause_s: float
    until_s: float
    is_probed: bool = False
    """Whether a thread is asking."""
    answer_s: float | None = None
    """How long an answer took it, since the last failure of somebody else."""
    was_heard: bool = False
    """Whether that thread was ever answered."""


class Patience:
    """Of the clients of one log. Safe to share between threads."""

    def __init__(self, probe: Callable[[TopicPartition], object], wait_s: float = REQUEST_S) -> None:
        """`probe` asks anything of a partition, and raises `Retryable` where there is no answer in `REQUEST_S`; from
        any thread. With a `wait_s` of `REQUEST_S` nothing is remembered: everyone waits for as long."""
        self.wait_s = wait_s
        self._probe = probe
        self._lock = threading.Lock()
        self._silent: dict[TopicPartition, _Silence] = {}
        self._waits_s: dict[TopicPartition, float] = {}
        self._probes = 0
        """Threads that ask, those of silences that are forgotten too."""

    def ask(self, source: TopicPartition, call: Callable[[float], T]) -> T:
        """What `call` returns, given how many seconds it may wait. Raises as `call`, and `Retryable` at once where the
        partition is known to be silent."""
        if self.wait_s >= REQUEST_S:
            return call(REQUEST_S)
        wait_s = self._wait_s(source)
        begun_s = time.monotonic()
        try:
            answer = call(wait_s)
        except Retryable as error:
            self._note_silence(source, error, begun_s)
            raise
        with self._lock:
            self._waits_s[source] = min(max(self.wait_s, _SLOW * (time.monotonic() - begun_s)), REQUEST_S)
            self._silent.pop(source, None)
        return answer

    def blames_client(self, source: TopicPartition) -> bool:
        """Whether the client that gave no answer may be the reason: one that others were answered beside for long."""
        if self.wait_s >= REQUEST_S:
            return True
        with self._lock:
            silence = self._silent.get(source)
            return silence is not None and silence.was_heard and time.monotonic() - silence.since_s > REQUEST_S

    def forget(self) -> None:
        """New clients are asked as if nothing had been."""
        with self._lock:
            self._silent.clear()

    @property
    def is_probing(self) -> bool:
        """Whether a thread is asking."""
        with self._lock:
            return self._probes > 0

    def _wait_s(self, source: TopicPartition) -> float:
        with self._lock:
            silence = self._silent.get(source)
            if silence is None:
                return self._waits_s.get(source, self.wait_s)
            if time.monotonic() >= silence.until_s:
                answer_s, silence.answer_s = silence.answer_s, None
                if answer_s is not None:
                    return min(max(_BRIEF_S, _SLOW * answer_s), REQUEST_S)
                self._begin_probe(source, silence)
            raise Retryable(str(silence.error))

    def _note_silence(self, source: TopicPartition, error: Retryable, begun_s: float) -> None:
        with self._lock:
            silence = self._silent.get(source)
            now_s = time.monotonic()
            if silence is None:
                silence = self._silent[source] = _Silence(begun_s, error, _FIRST_PAUSE_S, now_s + _FIRST_PAUSE_S)
            else:
                silence.error = error
                _prolong(silence, now_s)
            self._begin_probe(source, silence)

    def _begin_probe(self, source: TopicPartition, silence: _Silence) -> None:
        if not silence.is_probed:
            silence.is_probed = True
            self._probes += 1
            name = f"probe {source.topic.topic_name} {source.partition}"
            threading.Thread(target=self._find_out, args=(source, silence), name=name, daemon=True).start()

    def _find_out(self, source: TopicPartition, silence: _Silence) -> None:
        answer_s = None
        try:
            answer_s = self._time_of_answer(source)
        finally:
            self._note_answer(silence, answer_s)

    def _note_answer(self, silence: _Silence, answer_s: float | None) -> None:
        with self._lock:
            self._probes -= 1
            silence.is_probed = False
            silence.answer_s = answer_s
            if answer_s is None:
                _prolong(silence, time.monotonic())
            else:
                silence.was_heard = True

    def _time_of_answer(self, source: TopicPartition) -> float | None:
        begun_s = time.monotonic()
        try:
            self._probe(source)
            # That question may have been under way when the silence ended: it says nothing of how long answers take.
            begun_s = time.monotonic()
            self._probe(source)
        except (Retryable, RuntimeError):  # the latter where the log was closed
            return None
        except HauptbuchError:
            return 0.0  # an answer too, and for him to hear who asks himself
        return time.monotonic() - begun_s


def _prolong(silence: _Silence, now_s: float) -> None:
    silence.pause_s = min(2 * silence.pause_s, _LONGEST_PAUSE_S)
    silence.until_s = now_s + silence.pause_s
