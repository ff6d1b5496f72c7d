"""
A zip as Alipay packs it: names in GBK, and no flag that says so.

The standard library writes names that are not ASCII as UTF-8 and flags them, so
the few records of the format are written here.

Source:
    docs/PAYMENTS.md §2.5; PKWARE's APPNOTE.TXT, §4.3.7, §4.3.12 and §4.3.16.
"""

import struct
import zlib
from collections.abc import Mapping
from typing import Final

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_VERSION: Final = 20
_DEFLATED: Final = 8
_DAY_ONE: Final = 0x0021  # 1980-01-01: the hour a bill was packed is nobody's affair


def pack_gbk(files: Mapping[str, bytes]) -> bytes:
    """Pack files under these names."""
    parts: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for text, content in files.items():
        name = text.encode("gbk")
        deflate = zlib.compressobj(wbits=-15)
        packed = deflate.compress(content) + deflate.flush()
        sums = (zlib.crc32(content), len(packed), len(content))
        head = (_VERSION, 0, _DEFLATED, 0, _DAY_ONE, *sums, len(name), 0)
        local = _LOCAL.pack(b"PK\x03\x04", *head) + name + packed
        entry = _CENTRAL.pack(b"PK\x01\x02", _VERSION, *head, 0, 0, 0, 0, offset)
        parts.append(local)
        directory.append(entry + name)
        offset += len(local)
    listed = b"".join(directory)
    end = _END.pack(b"PK\x05\x06", 0, 0, len(files), len(files), len(listed), offset, 0)
    return b"".join(parts) + listed + end
