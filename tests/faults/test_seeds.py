"""Mixed faults, drawn from a seed: sell while everything breaks, then judge."""

from tests.faults.lab.nemesis import plan_of, play


async def test_a_seed_of_mixed_faults_breaks_no_promise(site, seed):
    site.note(f"plan: {plan_of(seed)}")
    verdict = await play(site, seed)
    verdict.require()


def test_the_plan_of_a_seed_is_always_the_same():
    assert [str(plan_of(seed)) for seed in range(50)] == [str(plan_of(seed)) for seed in range(50)]
    assert len({str(plan_of(seed)) for seed in range(50)}) == 50
