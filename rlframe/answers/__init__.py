"""Final answers in mathematics: where a text states one, how to read it, and when two are the same.

- `thoughts` splits a completion at its tags;
- `extraction` finds the answer in a completion, by tags, boxes, hashes or position;
- `spelling` turns its many spellings into plain LaTeX, by one table;
- `reading` reads plain LaTeX as a value: a number, words, a date, a set (`values`);
- `comparison` compares values by kind, and leaves open what only algebra can decide;
- `algebra` asks math-verify, in a process that can be killed.
"""
