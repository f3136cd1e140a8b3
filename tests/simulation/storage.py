"""Files and directories as a disk has them: what is there for certain, and what a power cut may make of the rest.

Owns the legal outcomes of a power cut. A file loses any *blocks* of what was not synced, not only its end: each block is what
it was, or any of what was written over it since, and a file that has grown may have its new length and zeros in it. A directory
keeps a prefix of the changes that were not synced, each directory its own; a change (a rename, say) happens as a whole or not
at all.
Knows nothing of paths, descriptors or errors.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from attrs import Factory, define

Choose = Callable[[list[int]], int]
"""Picks one of several legal outcomes: ``min`` forgets all that may be forgotten, ``max`` nothing."""


@define(eq=False)
class Inode:
    """A file.

    Attributes:
        block: how many bytes reach the disk together.
        content: what reads see.
        durable: what is on the disk for certain, where no block of it stands in ``versions``.
        versions: of blocks that were written since: what may be on the disk instead.
        dirty: the blocks that the next sync writes. Less than ``versions`` after a sync that failed and marked them clean.
        sizes: the lengths that the file may be found with, from the durable one to the present.
    """

    block: int
    content: bytearray = Factory(bytearray)
    durable: bytearray = Factory(bytearray)
    versions: dict[int, list[bytes]] = Factory(dict)
    dirty: set[int] = Factory(set)
    sizes: list[int] = Factory(lambda: [0])

    def append(self, content: bytes) -> None:
        """Write behind the end."""
        if content:
            start = len(self.content)
            self.content += content
            self._touch(start)

    def resize(self, size: int) -> None:
        """Cut it, or lengthen it with zeros."""
        before = len(self.content)
        if size > before:
            self.append(bytes(size - before))
        elif size < before:
            del self.content[size:]
            self._touch(size)

    def _touch(self, start: int) -> None:
        """Everything from ``start`` on is new."""
        self.sizes.append(len(self.content))
        for block in range(start // self.block, -(-len(self.content) // self.block)):
            version = bytes(self.content[block * self.block : (block + 1) * self.block])
            self.versions.setdefault(block, []).append(version.ljust(self.block, b"\0"))
            self.dirty.add(block)

    def sync(self) -> None:
        """What is dirty reaches the disk."""
        size = len(self.content)
        del self.durable[size:]
        self.durable.extend(bytes(size - len(self.durable)))
        for block in self.dirty:
            start, stop = block * self.block, min((block + 1) * self.block, size)
            if start < size:
                self.durable[start:stop] = self.content[start:stop]
            self.versions.pop(block, None)
        for block in [block for block in self.versions if block * self.block >= size]:
            del self.versions[block]
        self.dirty.clear()
        self.sizes = [size]

    def lose(self) -> None:
        """A sync fails as Linux lets it: the pages count as clean, whatever has reached the disk. The next sync will succeed."""
        self.dirty.clear()

    @property
    def allocated(self) -> int:
        """How many bytes of the disk it holds."""
        return -(-len(self.content) // self.block) * self.block

    def survivor(self, choose: Choose) -> Inode:
        """The file as it may be found after the power has gone."""
        sizes = self._sizes_on_disk()
        size = sizes[choose(list(range(len(sizes)))) if len(sizes) > 1 else 0]
        found = self.durable[:size]
        found.extend(bytes(size - len(found)))
        for block in sorted(self.versions):
            start, stop = block * self.block, min((block + 1) * self.block, size)
            if start >= size:
                break
            versions = self.versions[block]
            kept = choose(list(range(len(versions) + 1)))
            if kept:
                found[start:stop] = versions[kept - 1][: stop - start]
        return Inode(self.block, found, bytearray(found), sizes=[size])

    def _sizes_on_disk(self) -> list[int]:
        """Every length that may have been written down: a file grows block by block, and is cut at once."""
        sizes = self.sizes[:1]
        for before, after in pairwise(self.sizes):
            first = (before // self.block + 1) * self.block
            sizes.extend(range(first, after, self.block))
            sizes.append(after)
        return sizes


Names = dict[str, "Inode | Directory"]


@define(eq=False)
class Directory:
    """Names as they are, as they are for certain, and the changes between."""

    entries: Names = Factory(dict)
    durable: Names = Factory(dict)
    waiting: list[Change] = Factory(list)


@define(eq=False)
class Change:
    """One operation on names.

    Attributes:
        number: changes happened in this order.
        names: where, which name, and what bears it from now on; None for nothing.
        lost: a sync that failed has taken it for written: later ones pass it over.
    """

    number: int
    names: list[tuple[Directory, str, Inode | Directory | None]]
    lost: bool = False

    def make(self) -> None:
        """It happens, in memory."""
        for directory, name, node in self.names:
            _put(directory.entries, name, node)
            if self not in directory.waiting:
                directory.waiting.append(self)


def sync_names(directory: Directory) -> None:
    """Make the names of a directory durable, with everything that their changes hang together with."""
    done = _closed({change for change in directory.waiting if not change.lost})
    for change in sorted(done, key=_order):
        for where, name, node in change.names:
            _put(where.durable, name, node)
            if change in where.waiting:
                where.waiting.remove(change)
            for other in list(where.waiting):  # one that was lost stays lost, but not over what is durable now
                if other.lost and other.number < change.number:
                    other.names = [entry for entry in other.names if entry[:2] != (where, name)]
                    if not any(entry[0] is where for entry in other.names):
                        where.waiting.remove(other)


def lose_names(directory: Directory) -> None:
    """A sync of a directory fails, and what it should have written counts as clean."""
    for change in directory.waiting:
        change.lost = True


def surviving_tree(root: Directory, choose: Choose) -> Directory:
    """All that may be found after the power has gone, from the root on."""
    kept: set[Change] = set()
    for directory in _directories(root, set()):
        if directory.waiting:
            kept |= set(directory.waiting[: choose(list(range(len(directory.waiting) + 1)))])
    names: dict[int, Names] = {}
    for change in sorted(_closed(kept, also_lost=True), key=_order):
        for where, name, node in change.names:
            _put(names.setdefault(id(where), dict(where.durable)), name, node)
    copies: dict[int, Inode | Directory] = {}

    def copy(node: Inode | Directory) -> Inode | Directory:
        if id(node) not in copies:
            if isinstance(node, Inode):
                copies[id(node)] = node.survivor(choose)
            else:
                found = {name: copy(child) for name, child in names.get(id(node), node.durable).items()}
                copies[id(node)] = Directory(found, dict(found))
        return copies[id(node)]

    survivor = copy(root)
    assert isinstance(survivor, Directory)
    return survivor


def inodes(root: Directory) -> set[Inode]:
    """Every file that has a name."""
    return {node for directory in _directories(root, set()) for node in directory.entries.values() if isinstance(node, Inode)}


def _closed(changes: set[Change], also_lost: bool = False) -> set[Change]:
    """With each change all that came before it in each directory that it touches."""
    done: set[Change] = set()
    left = list(changes)
    while left:
        change = left.pop()
        if change in done:
            continue
        done.add(change)
        for directory in {id(where): where for where, _, _ in change.names}.values():
            before = directory.waiting[: directory.waiting.index(change)] if change in directory.waiting else []
            left += [earlier for earlier in before if also_lost or not earlier.lost]
    return done


def _directories(node: Directory, seen: set[int]) -> list[Directory]:
    """A directory and all below it, by the names that are or may again be there."""
    if id(node) in seen:
        return []
    seen.add(id(node))
    found = [node]
    changed = [entry[2] for change in node.waiting for entry in change.names]
    for child in (*node.entries.values(), *node.durable.values(), *changed):
        if isinstance(child, Directory):
            found += _directories(child, seen)
    return found


def _put(names: Names, name: str, node: Inode | Directory | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _order(change: Change) -> int:
    return change.number
