"""The wordings in which list problems are put to chat models.

All say that places are counted from 0 and that `sort` means the order of the names as written: the prompts of
ParallelBench leave the first open and contradict their labels on the second.
"""

_QUEUE_HEAD = "You keep the queue of a help desk. "
_QUEUE_TAIL = " Reply with the list alone."
_LIST_TAIL = " Give the resulting list in the same format and nothing else."

_QUEUE = {
    "copy": "These people stand in the queue, in order of arrival:\n{list}\n"
    "Write the same list again without any change.",
    "reverse": "A colleague entered the queue back to front:\n{list}\nTurn the order around.",
    "sort": "The queue must be in alphabetical order of the names as written:\n{list}\nSort it.",
    "shuffle": "To be fair, the queue is put into a random order:\n{list}\n"
    "Shuffle it. The result must not equal the given order.",
    "insert_index": '"{word}" joins the queue at position {index} (the first place is 0):\n{list}\n'
    "Write the new queue.",
    "insert_random": '"{word}" joins the queue at a place of your choice, picked at random:\n{list}\n'
    "Write the new queue.",
    "remove_index": "The person at position {index} (the first place is 0) leaves the queue:\n{list}\n"
    "Write the new queue.",
    "remove_random": "One person, picked at random, leaves the queue:\n{list}\nWrite the new queue.",
    "replace_index": "The person at position {index} (the first place is 0) gives the place to "
    '"{word}":\n{list}\nWrite the new queue.',
    "replace_random": 'One person, picked at random, gives the place to "{word}":\n{list}\nWrite the new queue.',
    "repeat_each": "Everyone in the queue needs {count} tickets in a row:\n{list}\n"
    "Write the queue with each name {count} times, one after the other.",
    "repeat_list": "The whole queue lines up {count} times, round after round:\n{list}\nWrite all rounds as one list.",
}

_LIST = {
    "copy": "{list}\nCopy this list exactly as it is.",
    "reverse": "{list}\nWrite this list from its last entry to its first.",
    "sort": "{list}\nOrder the entries by their spelling, capital letters before small ones.",
    "shuffle": "{list}\nMix the entries of this list at random, so that the order changes.",
    "insert_index": '{list}\nCounting from 0, make "{word}" entry number {index}; later entries move on by one.',
    "insert_random": '{list}\nAdd "{word}" anywhere in this list, at random.',
    "remove_index": "{list}\nCounting from 0, delete entry number {index}.",
    "remove_random": "{list}\nDelete exactly one entry of this list, at random.",
    "replace_index": '{list}\nCounting from 0, overwrite entry number {index} with "{word}".',
    "replace_random": '{list}\nOverwrite exactly one entry of this list, at random, with "{word}".',
    "repeat_each": "{list}\nWrite every entry {count} times before the next one.",
    "repeat_list": "{list}\nWrite the whole list {count} times over, as a single list.",
}

PROMPTS = {
    "own-1": {op: _QUEUE_HEAD + text + _QUEUE_TAIL for op, text in _QUEUE.items()},
    "own-2": {op: text + _LIST_TAIL for op, text in _LIST.items()},
}
