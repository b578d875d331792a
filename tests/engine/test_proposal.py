"""Training questions like a typed one, by their words alone."""

from metavqa_cli.engine.proposal import nearest_by_words, proposed_answers
from metavqa_cli.tasks.taskset import Task

QUESTIONS = {
    "What color is the car?": ("red", "blue"),
    "What color is the boat?": ("red", "green"),
    "What color are the flowers?": ("yellow", "pink"),
    "Is it raining?": ("yes", "no"),
    "How many dogs are there?": ("1", "2"),
}
TASKS = [Task(question, "it is {}", answers, (), (), "train") for question, answers in QUESTIONS.items()]


def near(question: str) -> list[str]:
    return [task.question for task, _ in nearest_by_words(question, TASKS)]


def test_a_known_question_is_its_own_nearest_with_similarity_one() -> None:
    for task in TASKS:
        found, similarity = nearest_by_words(task.question.upper(), TASKS)[0]
        assert (found, similarity) == (task, 1.0)


def test_questions_of_the_same_kind_are_near_and_the_nearest_come_first() -> None:
    found = nearest_by_words("what color is the cat", TASKS)
    assert [task.question for task, _ in found] == [
        "What color is the car?",
        "What color is the boat?",
        "What color are the flowers?",
    ]
    assert [s for _, s in found] == sorted((s for _, s in found), reverse=True) and found[0][1] > 0.9


def test_an_unfinished_word_is_enough_and_nothing_shared_is_nothing_near() -> None:
    assert near("how man") == ["How many dogs are there?"]
    assert near("") == near("  ? ") == near("zzz") == []


def test_only_nearest_ones_that_share_answers_propose() -> None:
    car, boat, flowers, rain, _ = TASKS
    assert proposed_answers([car, boat, flowers]) == ["red", "blue", "green"]
    assert proposed_answers([rain, car]) == ["yes", "no"]
    assert proposed_answers([]) == []
