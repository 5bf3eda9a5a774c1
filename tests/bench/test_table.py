"""What tests/README.md says of bytes and GETs is what the code reads."""

from tests.bench import bytes_read


def test_the_table_shows_what_requests_read() -> None:
    assert bytes_read.README.read_text("utf-8") == bytes_read.written(), "run: python -m tests.bench bytes --write"


def test_no_request_reads_more_than_the_whole_master() -> None:
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in bytes_read.table().splitlines()[2:]]
    assert [name.strip("`") for name, *_ in cells] == sorted(path.name for path in bytes_read.MASTERS.iterdir())
    for _, whole, _, thumbnail, tile in cells:
        assert max(_bytes(thumbnail), _bytes(tile)) <= _bytes(whole)


def _bytes(cost: str) -> int:
    return int(cost.rpartition(" ")[2].replace(",", ""))
