"""How a large answer is sent: in pieces, with other work in between."""

from __future__ import annotations

import pytest
from starlette.types import Message

from special.concurrency.yielding import LOOP_ITERATIONS
from special.serving import Answer
from special.web.response import CHUNK_BYTES, send_answer
from tests.support.loop import counted


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        pytest.param(CHUNK_BYTES, 1, id="one piece"),
        pytest.param(CHUNK_BYTES + 1, 2, id="two"),
        pytest.param(5 * CHUNK_BYTES, 5, id="five"),
    ],
)
async def test_a_large_answer_goes_out_in_pieces_with_iterations_for_others_between(size: int, pieces: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"." * (size % 256)
    sent: list[bytes] = []
    async with counted() as loop:

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                loop.record()
                sent.append(message["body"])

        await send_answer(send, Answer(data, "image/jpeg", '"x"', len(data)), [])
    assert b"".join(sent) == data
    assert loop.gaps == [LOOP_ITERATIONS] * (pieces - 1)
