"""Graph algorithms, all without recursion: a chain of a thousand providers must not exhaust Python's stack.

Vertices are numbers from 0 to `count - 1`; `edges[v]` lists what `v` needs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

Edges = Sequence[Sequence[int]]


def strongly_connected(edges: Edges) -> list[list[int]]:
    """Tarjan's algorithm: the sets of vertices that all reach each other, what is needed before what needs it."""
    count = len(edges)
    index, low, on_stack = [-1] * count, [0] * count, [False] * count
    components: list[list[int]] = []
    path: list[int] = []
    counter = 0
    for root in range(count):
        if index[root] != -1:
            continue
        work = [(root, 0)]
        while work:
            vertex, step = work.pop()
            if step == 0:
                index[vertex] = low[vertex] = counter
                counter += 1
                path.append(vertex)
                on_stack[vertex] = True
            else:
                low[vertex] = min(low[vertex], low[edges[vertex][step - 1]])
            for position in range(step, len(edges[vertex])):
                needed = edges[vertex][position]
                if index[needed] == -1:
                    work.extend(((vertex, position + 1), (needed, 0)))
                    break
                if on_stack[needed]:
                    low[vertex] = min(low[vertex], index[needed])
            else:
                if low[vertex] == index[vertex]:
                    components.append(_pop_component(path, on_stack, vertex))
    return components


def component_numbers(edges: Edges) -> list[int]:
    """For each vertex the number of its strongly connected set."""
    numbers = [0] * len(edges)
    for number, members in enumerate(strongly_connected(edges)):
        for vertex in members:
            numbers[vertex] = number
    return numbers


def shortest_cycle(edges: Edges, members: Sequence[int]) -> list[int]:
    """The shortest way from a vertex of a strongly connected set back to itself; each vertex needs the next one."""
    inside = set(members)
    best: list[int] = []
    for start in sorted(members):
        cycle = _way_back(edges, start, inside)
        if cycle and (not best or len(cycle) < len(best)):
            best = cycle
        if len(best) <= 2:  # as short as it gets without a loop of one, which is found first
            break
    return best


def post_order(edges: Edges) -> list[int]:
    """All vertices, each after what it needs, as near to the given order as that allows. There must be no cycle."""
    done, order = [False] * len(edges), list[int]()
    for root in range(len(edges)):
        work = [(root, 0)]
        while work:
            vertex, step = work.pop()
            if step == 0 and done[vertex]:
                continue
            done[vertex] = True
            for position in range(step, len(edges[vertex])):
                needed = edges[vertex][position]
                if not done[needed]:
                    work.extend(((vertex, position + 1), (needed, 0)))
                    break
            else:
                order.append(vertex)
    return order


def _pop_component(path: list[int], on_stack: list[bool], root: int) -> list[int]:
    members: list[int] = []
    while True:
        vertex = path.pop()
        on_stack[vertex] = False
        members.append(vertex)
        if vertex == root:
            return members


def _way_back(edges: Edges, start: int, inside: set[int]) -> list[int]:
    came_from: dict[int, int] = {}
    waiting = deque([start])
    while waiting:
        vertex = waiting.popleft()
        for needed in edges[vertex]:
            if needed == start:
                way = [vertex]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if needed in inside and needed not in came_from:
                came_from[needed] = vertex
                waiting.append(needed)
    return []
