"""Images by year and number; those since 2000 are for the reading room, and small for everybody."""

from special.catalogue import PUBLIC, Caller, Entry, Hooks, Verdict


class Library(Hooks):
    """`1987-12` is 1987/0012.tif."""

    async def locate(self, identifier: str) -> Entry | None:
        year, _, number = identifier.partition("-")
        return Entry((f"{year}/{number:0>4}.tif",)) if year.isdecimal() and number.isdecimal() else None

    async def authorise(self, caller: Caller, image: Entry) -> Verdict:
        if caller.identifier < "2000":
            return PUBLIC
        return Verdict() if caller.address.startswith("10.1.") or "staff" in caller.roles else Verdict(400)
