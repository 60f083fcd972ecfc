"""The reader of frames has the same frames, answers and errors as the library, for the same bytes, however cut."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from processes.adapters.frame_reader import FrameReader

SIZE_MAX = 400
SIZES = (0, 1, 2, 3, 4, 5, 125, 126, 127, 150, 200, 399, 400, 401, 70_000)


def frame(dice: random.Random) -> bytes:
    """A frame, nearly always one that may be: most often a masked text."""
    usual = dice.random()
    size = dice.choice(SIZES[:-2]) if usual < 0.97 else dice.choice(SIZES)
    data = dice.randbytes(size)
    if usual < 0.6:
        return Frame(Opcode.TEXT, data).serialize(mask=True)
    if usual < 0.96:
        opcode = dice.choice([Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.CONT, Opcode.PING, Opcode.PONG])
        if opcode in (Opcode.PING, Opcode.PONG):
            return Frame(opcode, data[:125]).serialize(mask=True)
        return Frame(opcode, data, fin=dice.random() < 0.6).serialize(mask=True)
    if usual < 0.98:
        return Frame(Opcode.CLOSE, dice.choice([b"", b"\x03\xe8", b"\x03\xe8bye", b"\x00"])).serialize(mask=True)
    broken = bytearray(Frame(Opcode.TEXT, data).serialize(mask=dice.random() < 0.5))
    broken[dice.randrange(min(4, len(broken)))] = dice.randrange(256)
    return bytes(broken)


def told(found: Sequence[object]) -> list[tuple[Opcode, object, bool]]:
    return [
        (each.opcode, bytes(each.data), each.fin) if isinstance(each, Frame) else (Opcode.TEXT, each, True)
        for each in found
    ]


@pytest.mark.parametrize("seed", range(400))
def test_it_has_what_the_library_has_for_the_same_bytes(seed: int) -> None:
    dice = random.Random(seed)
    stream = b"".join(frame(dice) for _ in range(dice.randint(1, 20)))
    library, protocol = (ServerProtocol(state=State.OPEN, max_size=SIZE_MAX) for _ in range(2))
    reader = FrameReader(protocol, SIZE_MAX)
    at, own = 0, 0
    while at < len(stream):
        cut = dice.choice((1, 2, 3, 7, 20, 150, 2048))
        piece = stream[at : at + cut]
        at += cut
        if dice.random() < 0.01 and library.state is State.OPEN:
            for each in (library, protocol):
                each.send_close(1000)  # our own close, in the middle of anything
        library.receive_data(piece)
        found = reader.read(piece)
        own += sum(isinstance(each, bytes) for each in found)
        assert told(found) == told(library.events_received())
        assert protocol.data_to_send() == library.data_to_send()
        assert (protocol.state, protocol.current_size) == (library.state, library.current_size)
        assert str(protocol.close_rcvd) == str(library.close_rcvd)
        assert str(protocol.close_sent) == str(library.close_sent)
        assert str(protocol.parser_exc) == str(library.parser_exc)


@pytest.mark.parametrize("size", [1, 125, 126, 150, 400])
def test_a_whole_short_text_is_read_without_the_library(size: int) -> None:
    protocol = ServerProtocol(state=State.OPEN, max_size=SIZE_MAX)
    text = random.Random(size).randbytes(size)
    assert FrameReader(protocol, SIZE_MAX).read(Frame(Opcode.TEXT, text).serialize(mask=True)) == [text]
