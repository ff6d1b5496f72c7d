"""
Every failpoint, the role that dies there, and what is under way at that moment.

tests/style/test_failpoints.py holds it and the catalogue together.
"""

from typing import Final, NamedTuple

from tests.faults.steps import house_scenes, money_scenes, scenes
from tests.faults.steps.role_process import Role

# failpoint                 role         scene              in every `make test`
TABLE: Final = """
  flusher.after_read        worker       orders_wait
  flusher.after_lock        worker       poison_waits
  flusher.after_insert      worker       poison_waits
  flusher.before_commit     worker       poison_waits       often
  flusher.after_commit      worker       orders_wait        often
  flusher.after_publish     worker       orders_wait
  flusher.after_trim        worker       orders_wait
  closer.after_claim        worker       orders_expire
  closer.after_settle       worker       payment_expires
  closer.before_commit      worker       orders_expire
  closer.before_commit      worker       payment_expires
  closer.after_commit       worker       orders_expire      often
  mover.after_supersede     worker       move_superseded
  mover.before_script       worker       return_asked
  mover.before_script       worker       top_up_asked
  mover.before_script       worker       withdrawal_asked
  mover.after_script        worker       return_asked       often
  mover.after_script        worker       top_up_asked
  mover.after_script        worker       withdrawal_asked
  mover.before_debit        worker       withdrawal_asked
  mover.after_debit         worker       withdrawal_asked
  mover.before_done         worker       return_asked
  mover.before_done         worker       top_up_asked
  mover.after_done          worker       return_asked
  mover.before_credit       worker       withdrawal_asked
  mover.after_credit        worker       withdrawal_asked   often
  mover.after_credited      worker       withdrawal_asked
  grants.after_lease        coordinator  sale_published
  grants.after_leased       coordinator  sale_published
  grants.after_issue        coordinator  sale_published
  grants.after_apply        coordinator  sale_published     often
  grants.after_settle       coordinator  sale_published
  recovery.after_draining   coordinator  epoch_asked
  recovery.after_load       coordinator  epoch_asked
  recovery.after_fence      coordinator  epoch_asked
  recovery.after_fence      coordinator  sale_ended
  recovery.after_drain      coordinator  epoch_asked
  recovery.after_drain      coordinator  sale_ended
  recovery.after_epoch      coordinator  epoch_asked        often
  recovery.after_hashes     coordinator  epoch_asked
  recovery.after_write      coordinator  epoch_asked        often
  recovery.after_open       coordinator  epoch_asked
  recovery.after_forget     coordinator  epoch_asked
  recovery.after_close      coordinator  sale_ended
  callback.before_commit    api          payment_told       often
  callback.after_commit     api          payment_told
  callback.before_commit    api          wechatpay_told
  callback.after_commit     api          wechatpay_told
  callback.before_commit    api          alipay_told
  callback.after_commit     api          alipay_told
  poster.after_ledger       worker       capture_to_post    often
  poster.before_commit      worker       capture_to_post
  poster.after_commit       worker       capture_to_post
  refunds.after_claim       worker       refund_asked
  refunds.before_send       worker       refund_asked       often
  refunds.after_send        worker       refund_asked
  refunds.before_commit     worker       refund_asked
  refunds.after_commit      worker       refund_asked
  refunds.before_send       worker       wechatpay_refund_asked
  refunds.after_send        worker       wechatpay_refund_asked
  refunds.before_commit     worker       wechatpay_refund_asked
  refunds.before_commit     api          wechatpay_refund_told
  refunds.after_commit      api          wechatpay_refund_told
  refunds.before_send       worker       alipay_refund_asked
  refunds.after_send        worker       alipay_refund_asked
  refunds.before_commit     worker       alipay_refund_asked
  refund_request.after_insert       api  operator_refunds
  operator_refunds.before_commit    api  operator_refunds
  operator_refunds.after_commit     api  operator_refunds
  house.after_open          api          balance_spent
  house.after_confirm       api          proof_shown
  house.after_paid_back     api          paid_back_by_hand
  refund_request.after_insert       api  paid_order_cancelled
  take_back.before_commit   api          paid_order_cancelled
  take_back.after_commit    api          paid_order_cancelled
  refund_request.after_insert   worker   group_ends
  group_refunds.after_take  worker       group_ends
  group_refunds.before_commit   worker   group_ends         often
  group_refunds.after_commit    worker   group_ends
  groups.after_claim        worker       group_ends
  groups.before_failed      worker       group_ends
  groups.after_failed       worker       group_ends         often
  groups.before_release     worker       group_ends
  groups.after_release      worker       group_ends
  groups.after_shut         worker       group_rescued
  groups.before_merge       worker       group_rescued
  groups.after_merge        worker       group_rescued
  receipt.before_commit     worker       parcel_overdue
  receipt.after_commit      worker       parcel_overdue
  resealing.before_commit   worker       key_replaced
  resealing.after_commit    worker       key_replaced
"""


_SCENES: Final = (scenes, money_scenes, house_scenes)


class Case(NamedTuple):
    """One line of the table."""

    failpoint: str
    role: Role
    scene: scenes.Scene
    often: bool

    def __str__(self) -> str:
        return f"{self.failpoint}-{self.scene.__name__}"


def _case(failpoint: str, role: str, scene: str, often: str = "") -> Case:
    (played,) = (getattr(one, scene) for one in _SCENES if hasattr(one, scene))
    return Case(failpoint, Role(role), played, often == "often")


CASES: Final = [_case(*line.split()) for line in TABLE.strip().splitlines()]
