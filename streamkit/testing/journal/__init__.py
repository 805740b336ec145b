"""What every journal does, as tests that an engine of your own passes, too.

They are classes for pytest with asyncio_mode "auto". Give them three fixtures: `clock`, an
`opener` of empty journals that go by that clock, and `journal`, one that is open:

    from streamkit.testing.journal import Clock, Jobs, Reading

    @pytest.fixture
    def clock() -> Clock:
        return Clock()

    @pytest.fixture
    def opener(clock: Clock) -> Opener:
        async def open_one(options=None, steady=None) -> Journal:
            return await open_mine(options, clock=clock, steady=steady)
        return open_one

    @pytest.fixture
    async def journal(opener: Opener) -> AsyncIterator[Journal]:
        async with await opener() as journal:
            yield journal

    class TestReading(Reading):
        pass

`Journal.prune` of such an engine applies all that time brings, so that the clock of a test is
enough: what is too old goes, and workers that are silent are found.
"""

from streamkit.testing.journal.jobs import Jobs
from streamkit.testing.journal.reading import Following, Producers, Reading, Writing
from streamkit.testing.journal.retention import Retaining
from streamkit.testing.journal.support import Clock, Opener

__all__ = [
    "Clock",
    "Following",
    "Jobs",
    "Opener",
    "Producers",
    "Reading",
    "Retaining",
    "Writing",
]
