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


def opened() -> ServerProtocol:
    return ServerProtocol(state=State.OPEN, max_size=SIZE_MAX)


@pytest.mark.parametrize("seed", range(400))
def test_it_has_what_the_library_has_for_the_same_bytes(seed: int) -> None:
    """However they are cut, and whenever the reader gives up the library's state that it does not need."""
    dice = random.Random(seed)
    stream = b"".join(frame(dice) for _ in range(dice.randint(1, 20)))
    library, reader = opened(), FrameReader(SIZE_MAX)
    at = 0
    while at < len(stream):
        cut = dice.choice((1, 2, 3, 7, 20, 150, 2048))
        piece = stream[at : at + cut]
        at += cut
        if dice.random() < 0.01 and library.state is State.OPEN:
            for each in (library, reader.library()):
                each.send_close(1000)  # our own close, in the middle of anything
        library.receive_data(piece)
        assert told(reader.read(piece)) == told(library.events_received())
        protocol = reader.protocol or opened()
        assert protocol.data_to_send() == library.data_to_send()
        assert (reader.state, protocol.current_size) == (library.state, library.current_size)
        assert str(protocol.close_rcvd) == str(library.close_rcvd)
        assert str(protocol.close_sent) == str(library.close_sent)
        assert str(protocol.parser_exc) == str(library.parser_exc)
        if dice.random() < 0.3:
            reader.rest()


COMMON = {f"text{size}": (Opcode.TEXT, size) for size in (1, 125, 126, 150, 400)} | {
    f"pong{size}": (Opcode.PONG, size) for size in (0, 4, 125)
}


@pytest.mark.parametrize("kind", COMMON)
def test_a_whole_common_frame_is_read_without_the_library(kind: str) -> None:
    opcode, size = COMMON[kind]
    data = random.Random(size).randbytes(size)
    reader = FrameReader(SIZE_MAX)
    assert told(reader.read(Frame(opcode, data).serialize(mask=True))) == [(opcode, data, True)]
    assert reader.protocol is None


def test_the_librarys_state_is_given_up_between_two_messages_alone() -> None:
    reader = FrameReader(SIZE_MAX)
    parts = [Frame(Opcode.TEXT, b"a", fin=False), Frame(Opcode.PING, b"p"), Frame(Opcode.CONT, b"b")]
    stream = b"".join(part.serialize(mask=True) for part in parts)
    for at in range(len(stream)):
        reader.read(stream[at : at + 1])
        reader.rest()
        assert reader.protocol is not None, "a message, or an answer, is under way"
    reader.library().data_to_send()
    reader.rest()
    assert reader.protocol is None
