"""Heartbeat: a rank that dies or hangs is noticed by the others, whatever carries their gradients."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector
from typing import Any, NoReturn

BEAT, BYE, FAILED, SEEN = ".", "bye", "failed", "seen"  # words; any other is the sentence to end with
CONNECT = 10.0  # seconds in which all ranks must have reached rank zero
FAREWELL = 2.0  # seconds that a rank which leaves waits for the answer

DIED = "Rank {} died: what it printed last may say why."
SILENT = "Rank {} was not heard for {:g} s: it hangs, or its machine or the network does."
STOPPED = "Rank {} stopped with an error, which it printed, and the others cannot go on without it."
REMEDY = " Go on from the last checkpoint with --ckpt_path last."


class Heartbeat:
    """A thread that ends this process once another rank is lost, for training may then wait for ever.

    Every rank keeps one TCP connection to rank zero, over which both beat; rank zero tells the others. A
    closed connection is a rank that died, `patience` seconds of silence are one that hangs: its process,
    its machine or its network. (Whether its training advances is for the process group's own timeout.)
    Then one sentence goes to stderr and the process ends with exit code 1, so that launchers clean up.
    Whoever leaves says so and is missed by nobody, however long the others take; whoever failed gives the
    others `patience` seconds to fail by themselves. The thread touches no device and no collective.

    Args:
        rank: of this process.
        world_size: number of ranks.
        host: an address of rank zero that all can reach.
        broadcast: hands rank zero's object to every rank; called once.
        every: seconds between two beats.
        patience: seconds of silence after which a rank is lost.
        last_act: what to do before the process ends.

    Raises:
        ValueError: if `patience` is not more than two beats.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        host: str,
        broadcast: Callable[[Any], Any],
        *,
        every: float = 5.0,
        patience: float = 30.0,
        last_act: Callable[[], None] = lambda: None,
    ) -> None:
        check_seconds(every, patience)
        self.every, self.patience, self.last_act = every, patience, last_act
        self.selector = DefaultSelector()
        self.peers: dict[int, _Peer] = {}  # whom this rank listens to: rank zero all, the others rank zero
        self.doom = (float("inf"), "")  # when to end, and with which sentence, because another rank failed
        if rank == 0:
            self._receive_all(world_size, broadcast)
        else:
            self._reach_rank_zero(rank, host, broadcast)
        self.farewell = ""
        self.bell, self.ear = socket.socketpair()
        self.selector.register(self.ear, EVENT_READ)
        self.thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.thread.start()

    def leave(self, *, failed: bool = False) -> None:
        """Ends the watch: in order, or because this rank failed; only the first call counts."""
        if not self.farewell:
            self.farewell = FAILED if failed else BYE
            self.bell.close()  # wakes the thread up
            self.thread.join(2 * FAREWELL)

    def _receive_all(self, world_size: int, broadcast: Callable[[Any], Any]) -> None:
        with _listen() as listener:
            port, token = broadcast((listener.getsockname()[1], secrets.token_hex(8)))
            until = time.monotonic() + CONNECT
            while len(self.peers) < world_size - 1 and (left := until - time.monotonic()) > 0:
                listener.settimeout(left)
                with suppress(OSError, ValueError):  # whoever else knocks at an open port
                    peer = _Peer(listener.accept()[0])
                    (said, rank), *rest = (line.split(" ") for line in peer.lines())
                    if said == token:
                        self._watch(int(rank), peer)
                        for words in rest:
                            self._hear(int(rank), " ".join(words))
        missing = sorted(set(range(1, world_size)) - set(self.peers))
        if missing:
            warnings.warn(
                f"Rank {missing[0]} cannot reach port {port} of rank zero: should it die, it will be missed "
                "only after the process group's own timeout; let ranks connect to each other's ports.",
                stacklevel=4,
            )

    def _reach_rank_zero(self, rank: int, host: str, broadcast: Callable[[Any], Any]) -> None:
        port, token = broadcast(None)
        with suppress(OSError):  # of which rank zero warns
            peer = _Peer(socket.create_connection((host, port), CONNECT))
            peer.say(f"{token} {rank}")
            self._watch(0, peer)

    def _watch(self, rank: int, peer: _Peer) -> None:
        self.peers[rank] = peer
        self.selector.register(peer.connection, EVENT_READ, rank)

    def _run(self) -> None:
        beaten = looked = time.monotonic()
        while not self.farewell:
            self._look(self.every)
            now = time.monotonic()
            if now - looked > 2 * self.every:  # we were stopped ourselves, the others perhaps as well
                for peer in self.peers.values():
                    peer.heard = now
            looked = now
            if now - beaten >= self.every:
                beaten = now
                for peer in self.peers.values():
                    peer.say(BEAT)
            self._judge(now)
        self._part()

    def _look(self, seconds: float) -> None:
        """Listens for so long at most."""
        for key, _ in self.selector.select(max(0.0, seconds)):
            if key.data not in self.peers:  # the bell
                continue
            try:
                words = self.peers[key.data].lines()
            except OSError:
                words = [DIED.format(key.data) + REMEDY]
                if self.farewell == BYE:
                    words = [SEEN]
            for word in words:
                self._hear(key.data, word)

    def _hear(self, rank: int, word: str) -> None:
        peer = self.peers.get(rank)
        if peer is None:
            return
        peer.heard = time.monotonic()
        if word in (BYE, FAILED, SEEN):
            if word != SEEN:
                peer.say(SEEN)
            if word == FAILED:
                self.doom = min(self.doom, (peer.heard + self.patience, STOPPED.format(rank) + REMEDY))
            self.selector.unregister(peer.connection)
            self.peers.pop(rank).connection.close()
        elif word != BEAT:
            self._end(word)

    def _judge(self, now: float) -> None:
        """Ends the process if somebody's time is over."""
        for rank, peer in self.peers.items():
            if now - peer.heard > self.patience:
                self._end(SILENT.format(rank, self.patience) + REMEDY)
        if now > self.doom[0]:
            self._end(self.doom[1])

    def _part(self) -> None:
        """Says farewell and listens until all have answered, for an unread word would undo ours."""
        self.selector.unregister(self.ear)
        for peer in self.peers.values():
            peer.say(self.farewell)
        until = time.monotonic() + FAREWELL
        while self.peers and time.monotonic() < until:
            self._look(until - time.monotonic())
        for peer in self.peers.values():
            peer.connection.close()
        self.ear.close()
        self.selector.close()

    def _end(self, sentence: str) -> NoReturn:
        for peer in self.peers.values():
            peer.say(sentence)
        os.write(2, f"litgan: error: {sentence}\n".encode())
        self.last_act()
        os._exit(1)  # no clean-up: the thread of training may be waiting for the lost rank


class _Peer:
    """The other end of a connection: what it says, line by line, and when it was last heard."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(CONNECT)
        self.connection, self.heard, self.rest = connection, time.monotonic(), b""

    def say(self, word: str) -> None:
        with suppress(OSError):  # that it is gone will be heard
            self.connection.sendall(f"{word}\n".encode())

    def lines(self) -> list[str]:
        """The lines that have come, waiting for some.

        Raises:
            OSError: if the other end is gone.
        """
        received = self.connection.recv(4096)
        if not received:
            raise ConnectionResetError
        *lines, self.rest = (self.rest + received).split(b"\n")
        return [line.decode() for line in lines]


def check_seconds(every: float, patience: float) -> None:
    """Compares the two.

    Raises:
        ValueError: if `patience` is not more than two beats.
    """
    if not 0 < 2 * every < patience:
        raise ValueError(
            f"A heartbeat every {every:g} s is no sign of life within {patience:g} s: "
            "give a patience of more than two beats."
        )


def _listen() -> socket.socket:
    """A free port on all addresses of this machine, of both families where it has both."""
    if socket.has_dualstack_ipv6():
        with suppress(OSError):
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
    return socket.create_server(("", 0), backlog=4096)
