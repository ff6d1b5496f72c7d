"""
The mover: applies moves to the buckets' keys, and credits pools.

Any process may die at any point: a move is applied once by its id in Redis,
debited once under the lease's lock, credited once by its id in the pool.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from redis.asyncio import Redis

from app.inventory.bucket import (
    ForgottenKey,
    MoveAnswer,
    MoveCode,
    RememberedOrder,
    return_units,
    top_up,
    withdraw_units,
)
from app.inventory.grant_store import credit_pool
from app.inventory.move_store import (
    DebitedMove,
    Move,
    MoveKind,
    asked_moves,
    debit_withdrawal,
    debited_moves,
    mark_credited,
    mark_done,
    mark_seats_done,
    stop_bucket,
    supersede_moves,
)
from app.inventory.seats import return_group_units, set_seats
from app.kernel.clock import unix_ms
from app.kernel.errors import BrokenState, ShardUnavailable
from app.kernel.failpoints import failpoint
from app.storage.duties import Duties
from app.storage.keys import BucketKeys
from app.storage.shards import LockPurpose, Shard, Shards


@dataclass(frozen=True, slots=True, kw_only=True)
class MoverSettings:
    """How fast moves are applied."""

    moves_max: int = 1_000  # of one pass
    calls_at_once_max: int = 8  # scripts in flight; under the client's connections

    def __post_init__(self) -> None:
        assert 1 <= self.calls_at_once_max <= self.moves_max


class Mover:
    """Applies the moves of one shard's buckets."""

    def __init__(  # noqa: PLR0913, PLR0917  collaborators, each once
        self,
        shard: Shard,
        shards: Shards,
        duties: Duties,
        redis: Redis,
        deployment: str,
        settings: MoverSettings,
    ) -> None:
        self._shard = shard
        self._shards = shards
        self._duties = duties
        self._redis = redis
        self._deployment = deployment
        self._settings = settings

    async def move_once(self) -> int:
        """
        Credit what is debited, and apply what waits; neither holds up the other.

        A move that its bucket's keys contradict stops the bucket: the rebuild of the
        next epoch counts from Postgres, where the move is already.

        Returns:
            Moves that came a step further.

        Raises:
            RedisUnavailable, OutcomeUnknown, ShardUnavailable, BrokenState: call again;
                a move is never applied twice, and the others were not held up.
        """
        if not await self._duties.has(LockPurpose.MOVE):
            return 0
        await supersede_moves(self._shard)
        failpoint("mover.after_supersede")
        credited, applied = await asyncio.gather(
            self._credit_debited(), self._apply_asked(), return_exceptions=True
        )
        if isinstance(credited, BaseException):
            raise credited
        if isinstance(applied, BaseException):
            raise applied
        return credited + applied

    async def _apply_asked(self) -> int:
        """
        Apply what waits: seats first, then what gives units back or takes them.

        A return frees the seat of the group that its order was in at the end. So a merge that
        took the order along comes before it, or its shopper would be a member for ever; while
        one is not applied, the returns of its bucket wait.
        """
        moves = await asked_moves(self._shard, self._settings.moves_max)
        seats = [move for move in moves if move.kind is MoveKind.SEAT]
        answers = await self._call_scripts(seats)
        held_up = {
            (move.sale, move.bucket)
            for move, answer in zip(seats, answers, strict=True)
            if isinstance(answer, BaseException)
        }
        others = [
            move
            for move in moves
            if move.kind is not MoveKind.SEAT and (move.sale, move.bucket) not in held_up
        ]
        answers += await self._call_scripts(others)
        return await self._note_answers([*seats, *others], answers)

    async def _call_scripts(self, moves: Sequence[Move]) -> list[MoveAnswer | BaseException]:
        """Apply moves side by side; one that fails holds up no other."""
        turn = asyncio.Semaphore(self._settings.calls_at_once_max)

        async def apply(move: Move) -> MoveAnswer:
            async with turn:
                failpoint("mover.before_script")
                answer = await self._apply(move)
                failpoint("mover.after_script")
                return answer

        return await asyncio.gather(*map(apply, moves), return_exceptions=True)

    async def _note_answers(
        self, moves: Sequence[Move], answers: Sequence[MoveAnswer | BaseException]
    ) -> int:
        """Cross off what the scripts have applied; raise the first of their errors."""
        applied = 0
        done = []
        for move, answer in zip(moves, answers, strict=True):
            if isinstance(answer, MoveAnswer) and answer.code is not MoveCode.NOT_READY:
                applied += 1
                if not await self._note_answer(move, answer):
                    done.append(move.id)
        if done:
            failpoint("mover.before_done")
            await mark_done(self._shard, done)
            failpoint("mover.after_done")
        for move, answer in zip(moves, answers, strict=True):
            if isinstance(answer, BrokenState):
                await stop_bucket(self._shard, move)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return applied

    async def _apply(self, move: Move) -> MoveAnswer:
        keys = BucketKeys(self._deployment, move.sale, move.bucket, move.epoch)
        name = str(move.id)
        match move.kind:
            case MoveKind.RETURN:
                return await self._return(keys, move)
            case MoveKind.TOP_UP:
                return await top_up(
                    self._redis,
                    keys,
                    incarnation=move.incarnation,
                    move_id=name,
                    units=move.units,
                )
            case MoveKind.WITHDRAWAL:
                return await withdraw_units(
                    self._redis,
                    keys,
                    incarnation=move.incarnation,
                    move_id=name,
                    units_wanted=move.units,
                )
            case MoveKind.SEAT:
                return await self._set_seats(keys, move)
            case _:
                assert_never(move.kind)

    async def _note_answer(self, move: Move, answer: MoveAnswer) -> bool:
        """Write down what a script said besides "done"; False if it said nothing more."""
        if move.kind is MoveKind.WITHDRAWAL:
            failpoint("mover.before_debit")
            await debit_withdrawal(self._shard, move.id, answer.units)
            failpoint("mover.after_debit")
            return True
        if move.kind is MoveKind.SEAT:
            await mark_seats_done(self._shard, move.id, answer.units)
            return True
        return False

    async def _return(self, keys: BucketKeys, move: Move) -> MoveAnswer:
        """Give units back; a group order's seat with them."""
        assert move.shopper is not None
        if move.group_id is not None:
            return await return_group_units(
                self._redis,
                keys,
                incarnation=move.incarnation,
                move_id=str(move.id),
                shopper=move.shopper,
                units=move.units,
                group=move.group_id,
                forgotten=_forgotten(move),
            )
        return await return_units(
            self._redis,
            keys,
            incarnation=move.incarnation,
            move_id=str(move.id),
            shopper=move.shopper,
            units=move.units,
            forgotten=_forgotten(move),
        )

    async def _set_seats(self, keys: BucketKeys, move: Move) -> MoveAnswer:
        assert move.group_id is not None
        assert move.group_expires_at is not None
        assert move.members is not None
        return await set_seats(
            self._redis,
            keys,
            incarnation=move.incarnation,
            move_id=str(move.id),
            group=move.group_id,
            seats=move.seats,
            expires_at=move.group_expires_at,
            members=move.members,
            members_group=move.members_group,
        )

    async def _credit_debited(self) -> int:
        """Put debited units into their pools; a home shard that is away holds up its own."""
        by_home: dict[Shard, list[DebitedMove]] = {}
        for move in await debited_moves(self._shard, self._settings.moves_max):
            by_home.setdefault(self._shards.home(move.sale), []).append(move)
        credited = 0
        away: list[ShardUnavailable] = []
        for home, moves in by_home.items():
            try:
                credited += await self._credit(home, moves)
            except ShardUnavailable as error:
                away.append(error)
        if away:
            raise away[0]
        return credited

    async def _credit(self, home: Shard, moves: Sequence[DebitedMove]) -> int:
        for move in moves:
            failpoint("mover.before_credit")
            await credit_pool(home, move.sale, move.bucket, move.id, move.units)
            failpoint("mover.after_credit")
        await mark_credited(self._shard, [move.id for move in moves])
        failpoint("mover.after_credited")
        return len(moves)


def _forgotten(move: Move) -> ForgottenKey | None:
    """Say what a dead letter's return does to its key; a closed order's key stays."""
    if move.key_hash is None:
        return None
    assert move.order_epoch is not None
    assert move.order_seq is not None
    owner = None
    if move.owner_placed_at is not None:
        assert move.owner_epoch is not None
        assert move.owner_seq is not None
        assert move.owner_fingerprint is not None
        owner = RememberedOrder(
            move.owner_epoch,
            move.owner_seq,
            unix_ms(move.owner_placed_at),
            move.owner_fingerprint,
        )
    dead = RememberedOrder(move.order_epoch, move.order_seq, 0, b"\0" * 8)
    return ForgottenKey(move.key_hash, dead, owner)
