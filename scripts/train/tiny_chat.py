"""Conversations: the chat template, wordings, and the few replies outside the model's subject."""

import tiny_tasks as tasks

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

ABOUT = (
    "I am a tiny model that thinks in parallel. I solve counting and arithmetic problems such as products, greatest common divisors, "
    "prime factors and medians. Please ask me one."
)
GREETINGS = (
    "Hello", "Hello!", "hello", "Hi", "Hi!", "hi", "Hi there", "Hey", "Hey there!", "Good morning", "Good evening!", "How are you?", "What's up?",
)  # fmt: skip
ABOUT_YOU = (
    "Who are you?", "What are you?", "What can you do?", "What is your name?", "Tell me about yourself.", "Are you a person?", "Help",
    "How can you help me?", "Which model are you?", "What do you know?", "Who made you?", "Can you help me?", "who are you", "Are you ChatGPT?",
)  # fmt: skip
THANKS = ("Thanks", "Thank you!", "Thanks a lot.", "Great, thank you.", "Good job!", "Bye", "Goodbye!", "See you later.")
REQUESTS = ("Write {x}.", "Can you write {x}?", "Please write {x}.", "Tell me {x}.", "I want {x}.", "Give me {x}, please.", "Explain {x}.")
THINGS = (
    "a poem", "a short poem about the sea", "a story", "a joke", "an essay about history", "a song", "a letter to my friend", "a recipe for bread",
    "the news of today", "some Python code", "a program in C++", "the meaning of life", "how a car works", "the theory of relativity", "a fairy tale",
    "a summary of the book", "what love is", "how to cook rice", "quantum physics", "a translation into French", "the weather in London",
)  # fmt: skip
QUESTIONS = (
    "What is the capital of {x}?", "How many people live in {x}?", "Who is the president of {x}?", "Where is {x}?", "What is the weather in {x}?",
    "Tell me about {x}.", "When was {x} founded?", "How do I get to {x}?", "Which language is spoken in {x}?", "What is the best food in {x}?",
)  # fmt: skip
PLACES = (
    "France", "Germany", "Italy", "Spain", "Japan", "China", "India", "Brazil", "Canada", "Mexico", "Norway", "Egypt", "Peru", "London", "Paris",
    "Berlin", "Rome", "Tokyo", "New York", "Texas", "Africa", "Europe", "Austria", "Poland", "Greece", "Turkey", "Chile", "Iran", "Vienna",
)  # fmt: skip
SYSTEMS = (
    "You are a helpful assistant.", "You are a helpful assistant.", "You are Multiverse, a model that thinks in parallel.", "Answer correctly.",
    "You are a careful calculator.", "Be brief.",
)  # fmt: skip
# Beside the two wordings, others that mean the same, so that the choice doesn't hang on one string.
PARALLEL_WORDINGS = (tasks.PARALLEL,) * 10 + (" Think in parallel.", " Work on the parts in parallel.", "", "")
SEQUENTIAL_WORDINGS = (tasks.SEQUENTIAL,) * 10 + (" Think step by step.", " Work on the parts one after another.")


def small_talk(rng):
    pick = rng.random()
    if pick < 0.2:
        return rng.choice(GREETINGS)
    if pick < 0.45:
        return rng.choice(ABOUT_YOU)
    if pick < 0.55:
        return rng.choice(THANKS)
    if pick < 0.8:
        return rng.choice(REQUESTS).format(x=rng.choice(THINGS))
    return rng.choice(QUESTIONS).format(x=rng.choice(PLACES))


def problem_turn(rng, family):
    problem = tasks.draw_problem(rng, family)
    parallel = rng.random() < (0.5 if family in tasks.BLOCKLESS else 0.6)
    wording = rng.choice(PARALLEL_WORDINGS if parallel else SEQUENTIAL_WORDINGS)
    return problem.question + wording, tasks.solution(problem, parallel)


def turn(rng, families, weights):
    if rng.random() < 0.03:
        wording = rng.choice(("", "", tasks.PARALLEL, tasks.SEQUENTIAL))
        return small_talk(rng) + wording, ABOUT
    return problem_turn(rng, rng.choices(families, weights)[0])


def conversation(rng, families, weights):
    """The messages of a conversation, as fine-tuning reads them."""
    messages = [{"role": "system", "content": rng.choice(SYSTEMS)}] if rng.random() < 0.1 else []
    if rng.random() < 0.04:  # an earlier, short turn
        messages += asked(small_talk(rng), ABOUT) if rng.random() < 0.5 else asked(*problem_turn(rng, rng.choice(("short", "letter"))))
    return [*messages, *asked(*turn(rng, families, weights))]


def asked(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
