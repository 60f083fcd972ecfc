"""The token table, in pieces, with changes and losses in between; and the census's pieces."""

from __future__ import annotations

from processes.core.gateway import census
from processes.core.gateway.agent_connection import AgentConnection
from processes.core.gateway.token_table import TokenTable
from processes.core.travels import agent_frames, messages
from processes.core.travels.messages import CENSUS_PIECE, CensusTaken, Token, TokenChanged, TokensPiece

A, B, A2 = Token("ha", "a", "1"), Token("hb", "b", "2"), Token("ha2", "a", "3")


def whole(*tokens: Token) -> TokenTable:
    table = TokenTable()
    assert table.piece(TokensPiece(1, 0, True, list(tokens)))
    return table


def test_a_table_is_current_with_its_last_piece_and_not_before() -> None:
    table = TokenTable()
    assert not table.piece(TokensPiece(1, 0, False, [A]))
    assert not table.is_current
    assert table.find("ha") is None
    assert table.piece(TokensPiece(1, 1, True, [B]))
    assert (table.is_current, table.find("ha"), table.of_host("b"), len(table)) == (True, A, B, 2)


def test_a_missing_piece_waits_for_the_next_whole_table() -> None:
    table = TokenTable()
    table.piece(TokensPiece(1, 0, False, [A]))
    assert not table.piece(TokensPiece(1, 2, True, [B]))
    assert not table.piece(TokensPiece(1, 1, True, [B]))
    assert not table.is_current
    assert not TokenTable().piece(TokensPiece(1, 3, True, [B]))


def test_the_old_table_holds_while_a_new_one_arrives() -> None:
    table = whole(A)
    table.piece(TokensPiece(1, 0, False, [B]))
    assert (table.is_current, table.find("ha"), table.find("hb")) == (True, A, None)
    table.piece(TokensPiece(1, 1, True, []))
    assert (table.find("ha"), table.find("hb")) == (None, B)


def test_a_change_holds_for_the_table_in_force_and_the_one_that_arrives() -> None:
    table = whole(A, B)
    table.piece(TokensPiece(1, 0, False, [A, B]))
    table.change(TokenChanged(1, "a", A2))
    table.change(TokenChanged(1, "b", None))
    for _ in range(2):
        assert (table.find("ha"), table.find("ha2"), table.find("hb")) == (None, A2, None)
        table.piece(TokensPiece(1, 1, True, []))


def test_after_a_loss_nothing_but_a_whole_new_table_is_current() -> None:
    table = whole(A)
    table.piece(TokensPiece(1, 0, False, [A]))
    table.lose()
    assert not table.piece(TokensPiece(1, 1, True, [B]))
    assert not table.is_current
    assert table.piece(TokensPiece(1, 0, True, [B]))
    assert table.is_current


def connection_of(number: int, known: int = 0) -> AgentConnection:
    connection = AgentConnection(f"boot.{number}", "gateway", Token("h", f"h{number}", "1"), "", 0.0)
    frame = agent_frames.Register(f"h{number}", known=[agent_frames.Known(f"{number:0100}", "accepted")] * known)
    connection.read([(agent_frames.encode(frame), True)], 0.0)
    return connection


def read_all(connections: list[AgentConnection]) -> list[CensusTaken]:
    found = [messages.decode_event(item) for item in census.pieces("gateway", "boot", 7, connections)]
    assert all(isinstance(piece, CensusTaken) and piece.census == 7 and piece.boot == "boot" for piece in found)
    return [piece for piece in found if isinstance(piece, CensusTaken)]


def test_an_empty_census_is_one_last_piece() -> None:
    (piece,) = read_all([])
    assert (piece.piece, piece.last, piece.connections) == (0, True, [])


def test_a_census_is_cut_by_number_and_by_size_and_names_everybody_once() -> None:
    for connections, least in (
        ([connection_of(n) for n in range(450)], 3),
        ([connection_of(n, 1000) for n in range(20)], 5),
    ):
        pieces = read_all(connections)
        assert len(pieces) >= least
        assert [piece.piece for piece in pieces] == list(range(len(pieces)))
        assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert all(len(piece.connections) <= CENSUS_PIECE for piece in pieces)
        assert [c.connection for piece in pieces for c in piece.connections] == [each.id for each in connections]


def test_a_connection_that_ends_before_its_piece_is_made_is_left_out() -> None:
    connections = [connection_of(1), connection_of(2)]
    pieces = census.pieces("gateway", "boot", 1, iter(connections))
    connections[1].end(1000, "")
    piece = messages.decode_event(next(pieces))
    assert isinstance(piece, CensusTaken)
    assert [c.connection for c in piece.connections] == ["boot.1"]
