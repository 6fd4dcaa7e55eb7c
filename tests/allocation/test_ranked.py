from hypothesis import given
from hypothesis import strategies as st

from merit.allocation.shortest_queue import ShortestQueue
from merit.allocation.strategy import Candidate

names = st.sampled_from("abcdefgh")
steps = st.lists(
    st.tuples(st.just("place"), names, st.integers(0, 3))
    | st.tuples(st.just("remove"), names, st.just(0))
    | st.tuples(st.just("leading"), names, st.integers(0, 9)),
    max_size=300,
)


@given(steps)
def test_it_is_the_sorted_list_of_those_that_are_placed(story):
    order, there = ShortestQueue(), {}
    for step, name, number in story:
        if step == "place":
            order.place(Candidate(name, live=number))
            there[name] = number
        elif step == "remove":
            order.remove(name)
            there.pop(name, None)
        else:
            ranking = sorted(there, key=lambda worker: (there[worker], worker))
            assert order.leading(number) == ranking[:number]
            assert order.leading(number, {name}) == [worker for worker in ranking if worker != name][:number]
            assert order.choose() == (ranking[0] if ranking else None)
            assert order.placed() == there.keys()


def test_a_worker_that_is_placed_anew_again_and_again_takes_no_more_room():
    order = ShortestQueue()
    order.place(Candidate("other", live=1_000_000))
    for number in range(10_000):
        order.place(Candidate("w", live=10_000 - number))
        assert order.choose() == "w"
    assert len(order._heap) <= 2 * 2 + 64
    order.remove("w")
    order.remove("other")
    assert order.choose() is None
    assert not order._heap
