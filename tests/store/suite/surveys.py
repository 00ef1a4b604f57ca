"""A survey changes nothing of what is there, or of what can be taken."""

from faststream_outbox._values.outcome import Released

from .subject import LONG, PAST, Subject, claim, draft, fail_once, hold, ids, put, settle, shards, visit


class Surveys:
    async def test_a_survey_takes_nothing_and_hides_nothing(self, subject: Subject) -> None:
        await hold(subject, "held")
        await fail_once(subject, draft(key="waits"), delay=LONG)
        back = await put(subject, draft(key="back"))
        await settle(subject, await claim(subject), Released())
        behind = await put(subject, draft(key="held"), draft(key="waits"))
        takeable = await put(subject, draft(), draft(key="free"), draft(key="due", activate_at=PAST))
        before = await subject.rows()
        for _ in range(4):
            await subject.store.survey(shards("q", "other"))
        assert await subject.rows() == before
        assert await visit(subject) == sorted([*back, *takeable])
        assert ids(await claim(subject)) == sorted([*back, *takeable, *behind])

    async def test_a_survey_of_no_shard_does_nothing(self, subject: Subject) -> None:
        await subject.store.survey([])
