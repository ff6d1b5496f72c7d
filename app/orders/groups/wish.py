"""Which group a click asks for, and which one its order is in, as the public says it. Pure."""

from app.kernel.ids import OrderKey
from app.orders.groups.group import NEW_GROUP, GroupKey
from app.orders.groups.ids import group_of, read_group_id, write_group_id
from app.orders.order import Order
from app.orders.sealing import OrderIds
from app.sales.sale import Sale
from app.web.invalid import field_invalid


def wished_group(ids: OrderIds, sale: Sale, wish: str | None) -> str | None:
    """
    Read `group` of the body of a click.

    Returns:
        What the script is told: "new", the name of a group of this sale, or "" for a
        sale without groups. None if there can be no such group here.

    Raises:
        RequestInvalid: a group where there are none, or none where one is required.
    """
    if sale.group is None:
        if wish is not None:
            raise field_invalid(path="$.group", message="this sale has no groups")
        return ""
    if wish is None:
        raise field_invalid(path="$.group", message='required: "new", or the id of a group')
    if wish == NEW_GROUP:
        return NEW_GROUP
    key = read_group_id(ids, wish)
    return None if key is None or key.sale != sale.number else key.name


def group_of_ticket(ids: OrderIds, order: OrderKey, asked: str) -> str | None:
    """Return the public id of the group that an accepted order has opened or joined."""
    if not asked:
        return None
    is_new = asked == NEW_GROUP
    key = group_of(order) if is_new else GroupKey(order.sale, order.bucket, asked)
    return write_group_id(ids, key)


def group_of_order(ids: OrderIds, order: Order) -> str | None:
    """Return the public id of the group that an order is in now."""
    if order.group_id is None:
        return None
    return write_group_id(ids, GroupKey(order.key.sale, order.key.bucket, order.group_id))
