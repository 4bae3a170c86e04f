"""Whether the garbage collector is at work."""

from __future__ import annotations

import gc
import weakref

import pytest

from isthmus import AnySession
from isthmus.collector import collector, collector_hook
from support import cell, run_in_child

requirement = pytest.mark.requirement


class Cyclic:
    """Freed by the collector alone."""

    def __init__(self, log: list[bool]) -> None:
        self.itself = self
        self.log = log

    def __del__(self) -> None:
        self.log.append(collector.at_work)


@requirement("4.1-refusals")
def test_it_knows_of_a_collection_from_finalizers_and_weak_callbacks() -> None:
    log: list[bool] = []
    collector_hook.install()
    try:
        kept = Cyclic(log)
        watch = weakref.ref(kept, lambda _: log.append(collector.at_work))
        del kept
        gc.collect()
        assert watch() is None
        assert log == [True, True]
        assert not collector.at_work
    finally:
        collector_hook.remove()


@requirement("4.1-refusals")
def test_freeing_without_the_collector_is_no_collection() -> None:
    log: list[bool] = []
    kept = Cyclic(log)
    kept.itself = None  # type: ignore[assignment]
    del kept
    assert log == [False]


FINALIZED = cell("""
    import gc

    log = []

    class Closing:
        def __init__(self, cyclic):
            self.itself = self if cyclic else None

        def __del__(self):
            try:
                log.append(run_sync(asyncio.sleep(0, "waited")))
            except Exception as error:
                log.append(type(error).__name__)

    def drop(cyclic):
        log.clear()
        Closing(cyclic)
        gc.collect()
        return list(log)
    """)


@requirement("4.1-refusals")
async def test_a_finalizer_waits_where_it_is_run_by_the_cell_and_not_by_the_collector(
    session: AnySession,
) -> None:
    await session.execute(FINALIZED)
    assert await session.execute("drop(False)", context="sync") == ["waited"]
    assert await session.execute("drop(True)", context="sync") == ["CollectorError"]
    assert await session.execute("drop(True)", context="thread") == ["waited"]


@requirement("4.1-refusals")
def test_what_a_finalizer_brings_back_can_be_freed_while_it_would_have_waited() -> None:
    program = """
        import asyncio, gc
        from isthmus import Session

        CELL = '''
        import gc

        class Part: pass

        class Whole:
            def __init__(self):
                self.itself = self
                self.parts = [Part() for _ in range(50)]
                for part in self.parts:
                    part.itself = part

            def __del__(self):
                kept.extend(self.parts)
                self.parts.clear()
                for part in kept:
                    part.__dict__.clear()
                try:
                    run_sync(asyncio.sleep(0))
                except RuntimeError:
                    pass

        for _ in range(20):
            for _ in range(10):
                Whole()
            gc.collect()
        '''

        def disturb(depth, kept):
            if depth:
                return disturb(depth - 1, kept)
            kept.clear()
            return [object() for _ in range(100)]

        async def main():
            async with Session() as session:
                kept = []
                session.update_namespace({"kept": kept})

                async def free():
                    while True:
                        await asyncio.sleep(0)
                        disturb(30, kept)

                freeing = asyncio.create_task(free())
                result = await session.run(CELL, context="sync")
                freeing.cancel()
                print(result.status)

        asyncio.run(main())
        """
    ended = run_in_child(program)
    assert (ended.status, ended.stdout.strip()) == (0, "ok"), ended
