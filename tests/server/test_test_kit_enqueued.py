"""`assert_enqueued`: which job a test means, and what it is shown when that isn't there."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import BaseModel, Field

from toril import Deduplication, Job, JobDef, QueueModule, exponential, fixed, module, process, processor
from toril.di import NotFound
from toril.errors import InvalidOptionError
from toril.testing import Test, TestingModule


class Place(BaseModel):
    street: str
    number: int = 1


class Parcel(BaseModel):
    to: str = Field(alias="recipient")
    places: list[Place] = []


SHIP = JobDef[Parcel, None]("ship")


@processor("parcels")
class Parcels:
    @process(SHIP)
    async def ship(self, job: Job[Parcel, None]) -> None:
        await job.queue.add("shipped", {"by": job.data.to}, priority=2)

    @process()
    async def rest(self, job: Job) -> None: ...


@module(imports=[QueueModule.register_queue("parcels", "bills")], providers=[Parcels])
class ShopModule: ...


async def compiled() -> TestingModule:
    return await Test.create_testing_module(imports=[ShopModule]).compile()


async def test_jobs_are_found_by_name_definition_data_and_options_also_when_they_are_gone() -> None:
    async with await compiled() as t:
        data = Parcel(recipient="ann", places=[Place(street="High"), Place(street="Low", number=2)])
        await t.run_job(SHIP, data, attempts=5, priority=1, delay="5m", backoff=exponential("1s"), remove_on_complete=True)
        [found] = t.assert_enqueued(SHIP)
        assert (found.queue, found.name, found.data["recipient"]) == ("parcels", "ship", "ann")
        t.assert_enqueued("ship", data)
        t.assert_enqueued("ship", {"recipient": "ann"}, queue="parcels", times=1)
        t.assert_enqueued("ship", {"places": [{"street": "High"}, {"number": 2}]})
        any_second: list[object] = [Place(street="High"), {}]
        t.assert_enqueued("ship", {"places": any_second})
        t.assert_enqueued(SHIP, priority=1, attempts=5, delay="5m", remove_on_complete=True, lifo=None)
        t.assert_enqueued(SHIP, delay=timedelta(minutes=5), backoff=exponential("1s"))
        t.assert_enqueued("shipped", {"by": "ann"}, priority=2, delay="0s")  # what handlers add counts
        t.assert_not_enqueued("bill")
        t.assert_not_enqueued("ship", queue="bills")
        t.assert_not_enqueued("ship", {"places": [{"street": "High"}]})  # a list is as long as it says
        t.assert_not_enqueued(SHIP, Parcel(recipient="ann"))  # a model is the whole payload
        t.assert_not_enqueued(SHIP, priority=2)


async def test_what_is_not_there_is_shown_with_what_is_the_nearest_first() -> None:
    async with await compiled() as t:
        await t.queue("bills").add("bill", {"recipient": "ann"})
        await t.queue("parcels").add(SHIP, {"recipient": "bob", "places": [{"street": "High"}]}, priority=3)
        await t.queue("parcels").add(SHIP, {"recipient": "bob", "places": []}, priority=1)
        with pytest.raises(AssertionError) as caught:
            t.assert_enqueued(SHIP, {"recipient": "ann", "places": []}, priority=1, delay="1m")
        text = str(caught.value)
        lines = text.splitlines()
        assert lines[0].startswith('job \'ship\' with at least the data {"recipient": "ann", "places": []} with priority=1, delay=\'1m\' ')
        assert lines[0].endswith("was not added. Added were:")
        assert lines[1] == '  parcels #2  ship  data {"recipient": "bob", "places": []}  options priority=1'
        assert 'but data.recipient is "bob" instead of "ann"; delay is None instead of \'1m\'' in lines[2]
        assert lines[3].endswith("options priority=3")
        assert "data.places is [{" in lines[4]
        assert "priority is 3 instead of 1" in lines[4]
        assert "  bills #1  bill" in lines[5]
        assert "name is 'bill' instead of 'ship'" in lines[6]


async def test_options_are_written_alike_everywhere_as_in_a_call() -> None:
    async with await compiled() as t:
        await t.queue("bills").add("bill", delay="90s", backoff=exponential("1s"), deduplication=Deduplication("7", ttl="10s"))
        with pytest.raises(AssertionError) as caught:
            t.assert_enqueued("bill", delay="5m", backoff=fixed("90s"))
        there = "Backoff(strategy='exponential', delay='1s', jitter=0.5, cap='1h')"
        wanted = "Backoff(strategy='fixed', delay='1m30s')"
        assert str(caught.value).splitlines() == [
            f"job 'bill' with delay='5m', backoff={wanted} was not added. Added were:",
            f"  bills #1  bill  data {{}}  options backoff={there}, delay='1m30s', deduplication=Deduplication(id='7', ttl='10s')",
            f"      but delay is '1m30s' instead of '5m'; backoff is {there} instead of {wanted}",
        ]


async def test_a_name_that_is_near_is_told() -> None:
    async with await compiled() as t:
        with pytest.raises(AssertionError, match=r"job 'shp' was not added\. Did you mean 'ship'\? Added were:"):
            t.assert_enqueued("shp")
        await t.queue("bills").add("invoice")
        with pytest.raises(AssertionError, match=r"job 'invioce' was not added\. Did you mean 'invoice'\? Added were:"):
            t.assert_enqueued("invioce")
        with pytest.raises(AssertionError, match=r"job 'ship' was not added\. Added were:"):
            t.assert_enqueued("ship")


async def test_nothing_at_all_is_said_so() -> None:
    async with await compiled() as t:
        with pytest.raises(AssertionError, match=r"(?s)job 'ship' was not added\. Added were:.*nothing at all was added"):
            t.assert_enqueued("ship")


async def test_a_wrong_number_of_them_is_an_error_that_shows_them() -> None:
    async with await compiled() as t:
        await t.queue("bills").add_many([t.queue("bills").job("bill", {"number": number}) for number in range(30)])
        t.assert_enqueued("bill", times=30)
        assert len(t.assert_enqueued("bill", {"number": 7})) == 1
        t.assert_enqueued("ship", times=0)
        with pytest.raises(AssertionError, match=r"(?s)was added 30 times \(2 expected\)\. Added were:.*and 10 more"):
            t.assert_enqueued("bill", times=2)
        with pytest.raises(AssertionError, match=r"was not added \(1 expected\)"):
            t.assert_enqueued("ship", times=1)


async def test_what_must_not_be_there_is_shown_alone() -> None:
    async with await compiled() as t:
        await t.queue("bills").add("bill", {"number": 1})
        await t.queue("bills").add("bill", {"number": 2})
        with pytest.raises(AssertionError) as caught:
            t.assert_not_enqueued("bill", {"number": 2})
        assert 'was added, and should not have been:\n  bills #2  bill  data {"number": 2}  no options' in str(caught.value)
        assert "#1" not in str(caught.value)


@processor("letters")
class Letters:
    @process("write")
    async def write(self, job: Job) -> None: ...


async def test_a_name_that_the_application_does_not_know_cannot_have_been_left_out() -> None:
    t = await Test.create_testing_module(imports=[QueueModule.register_queue("letters")], providers=[Letters]).compile()
    async with t:
        t.assert_not_enqueued("write")
        with pytest.raises(InvalidOptionError, match=r"name='wirte': no handler and no JobDef .* did you mean 'write'\?"):
            t.assert_not_enqueued("wirte")
        with pytest.raises(InvalidOptionError, match="did you mean 'write'"):
            t.assert_enqueued("wirte", times=0)
        with pytest.raises(InvalidOptionError, match=r"there are 'ship', 'write' \(If it is right all the same, give JobDef\('send'\)"):
            t.assert_not_enqueued("send")
        t.assert_not_enqueued("ship")  # a definition in this file
        t.assert_not_enqueued(JobDef("send"))
        await t.queue("letters").add("send")
        with pytest.raises(AssertionError, match="should not have been"):
            t.assert_not_enqueued("send")


async def test_where_any_name_may_be_added_only_one_that_is_near_another_is_a_slip() -> None:
    async with await compiled() as t:
        t.assert_not_enqueued("anything")  # the parcels have a handler for every name
        with pytest.raises(InvalidOptionError, match="did you mean 'ship'"):
            t.assert_not_enqueued("shipp")


async def test_slips_of_the_pen_are_errors_and_not_assertions_that_hold() -> None:
    async with await compiled() as t:
        with pytest.raises(NotFound, match="bills"):
            t.assert_not_enqueued("bill", queue="bill")
        with pytest.raises(InvalidOptionError, match="priority"):
            t.assert_not_enqueued("bill", priority=-1)
        with pytest.raises(TypeError, match="prioritty"):
            t.assert_not_enqueued("bill", prioritty=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # on purpose
