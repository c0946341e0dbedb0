"""What the orchestrator of a `MagenticOneGroupChat` asks its model."""

FACTS = """Here is a request. Before anybody starts to work on it, write down what is known about it. You know a great \
deal and are good at puzzles, so draw on that.

{task}

Answer in these four sections, with exactly these headings, and leave none out:

1. GIVEN OR VERIFIED FACTS: what the request itself says. There may be nothing.
2. FACTS TO LOOK UP: what has to be found, and where if the request tells.
3. FACTS TO DERIVE: what has to be concluded, computed or reasoned out.
4. EDUCATED GUESSES: what you recall or suspect, marked as uncertain.

Facts are above all names, dates, numbers and quotations. Write no plan and no next steps; those come later."""

PLAN = """Good. This is the team that will work on the request:

{team}

With the team and the facts in mind, write a short plan for the request as a list of points. Not everybody has to be \
involved; call on whoever has the skill that a step needs."""

LEDGER = """The request to be worked on:

{task}

The team that works on it:

{team}

What is known so far:

{facts}

The plan:

{plan}"""

PROGRESS = """Remember the request:

{task}

And the team that works on it:

{team}

To move on, answer these questions, each with the reason for the answer:

- is_request_satisfied: is the request fulfilled, completely and successfully? True only when it is done.
- is_in_loop: does the team go in circles, with the same questions or the same attempts again and again?
- is_progress_being_made: does the work move forward? False if the last steps added nothing, or if something stands \
in the way, such as a source that cannot be read.
- next_speaker: who shall speak next? One of: {names}
- instruction_or_question: what do you tell or ask them? Address them directly, with everything they need to know.

Answer with one JSON object of exactly this form, and nothing beside it:

{{
  "is_request_satisfied": {{"reason": string, "answer": boolean}},
  "is_in_loop": {{"reason": string, "answer": boolean}},
  "is_progress_being_made": {{"reason": string, "answer": boolean}},
  "next_speaker": {{"reason": string, "answer": string, one of: {names}}},
  "instruction_or_question": {{"reason": string, "answer": string}}
}}"""

CORRECTION = """This cannot be used: {problem}. Answer again with the whole JSON object, corrected, and nothing \
beside it."""

GO_ON = "Please do the next open step of the plan, as far as you can, and say what you have found."

FACTS_UPDATE = """Remember the request:

{task}

The work does not move forward as it should. Below are the facts as they were written down at first. Write them down \
again, with all that was learnt since then: move guesses and open questions to the verified facts where they were \
settled, correct what was wrong, and keep the four headings. Add or change at least one educated guess and say why you \
think so; this is a good moment to guess.

{facts}"""

PLAN_UPDATE = """Say in a few words what went wrong in the last attempt, and what was at the root of it. Then write a \
plan that overcomes this: a short list of points, with hints where they help, that does not repeat the mistake. The \
team is still the following, and nobody else can be asked:

{team}"""

ORCHESTRATOR_FINAL_ANSWER_PROMPT = """This was the request:

{task}

The work on it is over. The messages above hold what was found and done. Write the answer to the request from that: \
to the person who made it, in full sentences, complete, and saying so where something could not be settled."""
