"""AutoGen's traps of the runtime and of teams, and the pains its users have, each with the tests that hold it off.

`test_traps.py` looks whether these tests exist. A test is named by its file and its name without `test_`.
"""

from __future__ import annotations


def held_off(file: str, *names: str) -> list[str]:
    return [f"{file}.py::test_{name}" for name in names]


def runtime(*names: str) -> list[str]:
    return held_off("conformance/test_runtime", *names)


CUT_SHORT = held_off(
    "test_cancellation_everywhere", "a_team_cut_short_at_any_step_ends_cleanly_and_runs_again"
) + held_off("test_any_team", "cancelled_anywhere_a_team_goes_on_and_so_does_who_loads_its_state")

CORE = {
    "two subscriptions of one agent deliver a message twice": [
        *runtime("two_subscriptions_to_one_agent_deliver_once_and_equal_ones_are_refused"),
        *held_off("test_runtime", "an_event_reaches_every_subscriber_once"),
    ],
    "every topic that was ever seen is remembered": held_off("test_actors", "only_so_many_topics_are_remembered"),
    "handlers of one agent mix, with no way to let it handle one message after the other": [
        *runtime("handlers_of_one_agent_take_turns_unless_it_is_sequential"),
        *held_off("test_mailboxes", "a_sequential_agent_handles_one_message_after_the_other"),
    ],
    "an unknown recipient is a bare Exception that does not say who": [
        *runtime("an_unknown_recipient_is_refused_at_once_started_or_not"),
        *held_off("test_runtime", "an_unknown_agent_type_is_refused_at_once_with_a_hint"),
    ],
    "a request before the start waits, and is answered after it": runtime(
        "a_request_before_the_start_is_answered_after_it"
    ),
    "a message nobody handles, one of a subclass too, is answered with None": [
        *runtime("a_message_goes_to_the_first_handler_of_its_very_class"),
        *held_off("test_actors", "an_instance_of_a_subclass_is_not_handled", "an_unhandled_message_can_be_caught"),
    ],
    "a request whose token was cancelled before is handled all the same": [
        *runtime("a_cancelled_token_keeps_a_message_from_being_handled"),
        *held_off("test_runtime", "a_request_that_is_cancelled_in_the_queue_is_not_handled"),
    ],
    "a subscriber that cannot be made keeps the message from all": runtime(
        "a_factory_that_fails_hinders_no_other_subscriber"
    ),
    "a sender of an unknown type is a LookupError from tracing": runtime("a_sender_that_is_no_agent_is_accepted"),
    "first messages that race make several agents of one id": [
        *runtime("first_messages_that_race_make_one_agent"),
        *held_off("test_runtime", "first_messages_that_race_make_one_agent"),
        *held_off("test_population", "there_are_never_two_agents_of_one_id"),
    ],
    "states of unknown types are passed over": runtime(
        "states_go_to_the_agents_they_came_from_and_others_are_left_out"
    ),
    "stopping leaves senders waiting for ever": [
        *runtime("stopping_leaves_no_sender_waiting"),
        *held_off(
            "test_runtime",
            "stopping_answers_who_waits_in_the_queue",
            "handlers_that_run_when_it_stops_may_finish_and_answer",
        ),
    ],
    "a stopped runtime can be started again, with its agents": runtime(
        "a_stopped_runtime_starts_again_with_its_agents"
    ),
    "of several failures of events only the last is raised": [
        *runtime("failures_of_events_are_raised_when_it_stops_and_it_can_start_again"),
        *held_off("test_runtime", "failures_of_events_go_to_the_hook_and_the_log"),
    ],
    "idle is counted wrong: one that raises ends the waiting, a dropped message makes it endless": [
        *runtime("idle_is_only_when_the_last_subscriber_has_ended"),
        *runtime("dropped_messages_are_told_to_who_waits_and_it_becomes_idle"),
        *held_off("test_runtime", "a_failure_after_the_sender_has_gone_is_told_to_the_hook"),
        *held_off("test_runtime_properties", "whatever_the_schedule_nobody_hangs_and_nothing_is_lost"),
    ],
    "agents are never let go": held_off(
        "test_population", "an_idle_agent_is_released_and_comes_back", "many_short_sessions_leave_memory_flat"
    ),
    "interventions do not see what the one before made, and None for a message becomes the message": [
        *runtime("interventions_work_on_what_the_one_before_made"),
        *held_off("test_runtime", "interventions_see_what_the_one_before_made"),
        *held_off("test_traps", "an_intervention_that_returns_nothing_leaves_the_message_as_it_is"),
    ],
    "a handler that promises anything may return anything, others what they say": held_off(
        "test_actors",
        "a_handler_that_returns_something_else_than_annotated_fails",
        "a_handler_may_return_a_subclass_or_anything_if_it_says_so",
    ),
    "an agent whose messages cannot be carried is registered by half": [
        *runtime("a_registration_that_fails_leaves_nothing_behind"),
        *held_off("test_serialization", "registration_with_a_message_that_cannot_be_carried_leaves_nothing"),
    ],
    "a closure that ignores other types is called with them": [
        *runtime("a_closure_is_not_called_with_messages_it_does_not_take"),
        *held_off("test_actors", "messages_of_other_types_follow_the_policy_of_a_closure"),
    ],
    "message classes of one name overwrite each other": held_off(
        "test_serialization", "two_classes_of_one_name_are_only_an_error_when_one_must_be_chosen"
    ),
    "a token deadlocks in its callbacks, forgets the rest after one that raises, and keeps all for ever": held_off(
        "test_cancellation",
        "callbacks_run_once_and_may_look_at_the_token",
        "a_callback_that_raises_does_not_keep_the_others_from_running",
        "a_done_future_leaves_nothing_in_a_long_lived_token",
        "a_linked_future_is_cancelled_from_another_thread",
    ),
    "a key is written as asterisks, which are then used as the key": held_off(
        "test_blueprints",
        "a_secret_is_written_as_the_name_of_a_variable",
        "a_masked_key_of_autogens_is_not_taken_for_a_key",
    ),
    "a conditional edge is always open after dump and load, other functions are dropped": [
        *held_off("test_graph", "trap_a_condition_without_a_name_is_refused_not_written_as_always"),
        *held_off("test_graph", "a_registered_condition_is_written_by_name_and_holds_when_loaded"),
        *held_off("test_autogen_documents", "functions_that_autogen_drops_without_a_word_are_refused"),
        *held_off("test_blueprints", "what_cannot_be_written_is_refused_by_the_path_of_its_argument"),
    ],
    "loading a tool executes its source": held_off(
        "test_blueprints", "the_source_of_a_tool_in_a_document_is_never_executed"
    ),
    "memory piles up in the context": held_off("test_assistant", "memory_is_in_the_request_and_not_in_the_history"),
    "dicts, lists and None reach the model as Python prints them": held_off(
        "test_tools", "what_is_not_text_becomes_json_but_a_lone_none"
    ),
    "a parameter without annotation is a KeyError, variable arguments are required ones": held_off(
        "test_tools",
        "a_parameter_without_annotation_may_be_anything",
        "variable_arguments_are_refused_at_construction",
    ),
    "a renamed tool is not found in streaming": held_off("test_tools", "a_renamed_tool_works_in_streaming_too"),
    "a tool cannot be cancelled, and keeps the program from ending": held_off(
        "test_tools",
        "a_token_ends_a_call_even_if_the_tool_takes_no_notice",
        "a_blocked_tool_does_not_keep_the_program_from_ending",
    ),
}

TEAMS = {
    "a task given as a tuple is refused by teams and not by agents": held_off(
        "test_traps", "a_task_may_be_a_tuple_everywhere"
    ),
    "the task counts for terminations, and may end the run at once": [
        *held_off("test_teams", "the_task_itself_can_end_the_run"),
        *held_off("test_traps", "one_message_at_most_is_the_task_alone"),
    ],
    "what is said side by side is hidden from terminations": [
        *held_off("test_graph", "trap_termination_sees_everything_that_was_said_in_a_layer"),
        *held_off("test_golden", "g26_what_one_of_several_says_side_by_side_ends_the_run"),
    ],
    "a team in a team that speaks twice in a row fails": [
        *held_off("test_golden", "g27_a_nested_team_that_speaks_twice_in_a_row_goes_on"),
        *held_off("test_bad_teams", "a_team_within_that_ends_at_once_is_a_turn_like_any_other"),
    ],
    "after a cancel or an error every later run stops after one turn, or hangs": [
        *CUT_SHORT,
        *held_off("test_any_team", "a_member_that_fails_anywhere_is_named_with_its_turn_and_the_team_goes_on"),
        *held_off("test_graph", "a_failure_in_a_parallel_branch_is_named_and_the_layer_is_ready_again"),
    ],
    "a stream that was left keeps the team running": held_off(
        "test_run", "the_next_run_waits_for_one_whose_stream_was_dropped"
    ),
    "cancelling the task that waits for a team neither ends nor stops it": CUT_SHORT,
    "the list of messages an agent gets is emptied after its turn": held_off(
        "test_traps", "what_an_agent_keeps_of_its_messages_stays"
    ),
    "one failing member makes others fail too": held_off(
        "test_teams", "a_failing_member_is_named_with_its_turn_and_the_result_so_far"
    ),
    "a structured message must be registered": held_off(
        "test_traps", "a_structured_answer_needs_no_registration_in_a_team"
    ),
    "pause of a team at rest hangs, and pauses nothing in one that runs": held_off(
        "test_steering",
        "pausing_a_team_at_rest_neither_hangs_nor_holds_its_next_run",
        "a_paused_team_takes_no_turn_and_then_goes_on_as_if_it_had_not_been",
        "pause_of_the_team_itself_is_told_to_its_members",
    ),
    "what a team in a team says is heard, and is part of the state": [
        *held_off("test_golden", "g28_what_a_nested_team_says_is_heard_by_the_others"),
        *held_off("test_autogen_files", "a_file_of_autogens_loads_and_the_run_goes_on_with_whose_turn_it_is"),
    ],
    "only agents can be members of Swarm, GraphFlow and MagenticOne": [
        *held_off("test_swarm", "a_team_hands_over_with_the_last_thing_it_says"),
        *held_off("test_graph", "teams_are_nodes_like_agents"),
        *held_off("test_magentic", "a_team_can_be_a_member_and_be_led"),
    ],
    "a state saved in the middle of a run cannot be gone on with": held_off(
        "test_any_team",
        "saved_after_any_turn_and_loaded_elsewhere_a_team_goes_on_as_if_uninterrupted",
        "a_state_saved_in_mid_run_goes_on_in_another_process",
    ),
    "terminations are not saved": held_off("test_conditions", "going_on_from_a_saved_state_is_as_never_having_stopped"),
    "a running team can be reset and loaded into by halves": held_off(
        "test_traps", "a_running_team_is_neither_reset_nor_loaded_into"
    ),
    "selector: whom a function chose is not the previous speaker": held_off(
        "test_selector", "trap_whom_the_function_chose_is_the_previous_speaker"
    ),
    "selector: braces in a prompt are a KeyError": held_off(
        "test_selector", "trap_braces_in_a_prompt_are_ordinary_characters"
    ),
    "selector: whoever is named speaks, candidate or not": held_off(
        "test_selector", "who_is_not_among_the_candidates_of_a_function_cannot_be_named"
    ),
    "selector: the way out is the previous speaker, even where nobody may speak twice": held_off(
        "test_selector", "trap_the_previous_speaker_is_never_the_way_out"
    ),
    "selector: a state loaded into a used team doubles what the model sees": held_off(
        "test_selector", "trap_a_used_team_that_loads_a_state_sees_nothing_twice"
    ),
    "swarm: plain text after a handoff to a person is refused": held_off(
        "test_swarm", "trap_after_a_handoff_to_a_person_plain_text_goes_to_who_asked"
    ),
    "swarm: a handoff to an unknown name is an AssertionError": held_off(
        "test_swarm",
        "trap_a_handoff_to_nobody_known_ends_the_run_and_says_so",
        "whatever_name_a_member_gives_the_run_ends_in_order",
    ),
    "graph: a dead end is called complete": held_off("test_graph", "a_dead_end_is_named"),
    "graph: after the end it begins anew, after max_turns it goes on": held_off(
        "test_graph",
        "the_next_run_after_a_complete_one_begins_at_the_start",
        "a_walk_that_was_stopped_goes_on_with_who_was_ready",
    ),
    "graph: the activation of a node is ignored": held_off("test_graph", "trap_the_activation_of_a_node_is_honoured"),
    "graph: a node for which any parent is enough speaks twice": held_off(
        "test_graph", "trap_a_node_for_which_any_is_enough_speaks_once"
    ),
    "graph: a task of a node's name counts for its output": held_off(
        "test_graph", "trap_a_task_message_named_like_a_node_is_no_output_of_it"
    ),
    "graph: a message of another source ends the walk in silence": held_off(
        "test_graph", "trap_a_node_is_known_by_its_name_not_by_the_source_of_its_messages"
    ),
    "graph: a node that was at work when it was saved is lost": held_off(
        "test_graph", "saved_during_a_run_it_takes_the_open_layer_again"
    ),
    "magentic: a ledger that names nobody, or lacks a key, ends the run at once": held_off(
        "test_magentic",
        "a_ledger_that_cannot_be_used_is_asked_for_again_with_the_exact_error",
        "nonsense_for_ever_ends_in_the_stated_fallback",
    ),
    "magentic: max_turns=2 gives three turns": held_off(
        "test_magentic", "max_turns_counts_turns_of_members_exactly_and_ends_with_an_answer"
    ),
    "magentic: the second run ends at once": held_off(
        "test_magentic", "a_second_task_has_all_its_turns_and_begins_afresh"
    ),
    "magentic: a run without a task is an AssertionError": held_off(
        "test_magentic",
        "a_run_without_a_task_goes_on_with_the_last_one",
        "a_first_run_without_a_task_says_what_is_missing",
    ),
    "magentic: a structured message is an AssertionError, the output flag is ignored": held_off(
        "test_magentic",
        "structured_messages_of_members_are_read_as_json",
        "the_task_is_left_out_of_the_output_if_asked_for",
    ),
}

PAINS = {
    "1: cancelling does not stop things, or deadlocks": [
        *CUT_SHORT,
        *held_off(
            "test_cancellation_everywhere",
            "a_deaf_tool_does_not_hold_a_run_beyond_its_grace",
            "a_blocked_thread_does_not_hold_a_run",
        ),
        *held_off("test_code_executors", "cancelling_kills_all_that_runs_and_raises"),
        *held_off("test_steering", "ended_in_mid_turn_a_team_gives_what_there_is_and_runs_again"),
    ],
    "2: a team cannot be used after cancel, error or an abandoned stream": [
        *CUT_SHORT,
        *held_off("test_any_team", "a_member_that_fails_anywhere_is_named_with_its_turn_and_the_team_goes_on"),
        *held_off("test_steering", "a_paused_team_can_be_ended_and_runs_again"),
    ],
    "3: errors are swallowed, retyped or vague": [
        *held_off(
            "test_teams",
            "a_failing_member_is_named_with_its_turn_and_the_result_so_far",
            "a_nested_failure_names_the_way_to_the_agent",
        ),
        *held_off("test_bad_teams", "a_member_that_raises_is_named_in_every_team_which_runs_again"),
    ],
    "4: state is incomplete, and runs cannot be gone on with": [
        *held_off(
            "test_any_team",
            "saved_after_any_turn_and_loaded_elsewhere_a_team_goes_on_as_if_uninterrupted",
            "a_state_saved_in_mid_run_goes_on_in_another_process",
            "stopped_after_any_turn_a_team_goes_on_and_so_does_who_loads_its_state",
            "cut_by_a_limit_anywhere_a_team_goes_on_and_so_does_who_loads_its_state",
        ),
        *held_off("test_autogen_files", "a_file_of_autogens_loads_and_the_run_goes_on_with_whose_turn_it_is"),
    ],
    "5: graphs stop early, joins never fire, loops confuse": [
        *held_off(
            "test_graph",
            "a_dead_end_is_named",
            "a_loop_through_a_join_fires_the_join_in_every_round",
            "where_nothing_is_warned_of_no_join_waits_in_vain",
            "trap_termination_sees_everything_that_was_said_in_a_layer",
        ),
        *held_off(
            "test_digraph",
            "a_join_after_branches_of_which_one_is_skipped_may_never_fire",
            "a_loop_back_into_the_group_of_the_way_in_is_proven_never_to_fire",
        ),
    ],
    "6: a cut context tears calls and results apart": held_off(
        "test_model_context",
        "whatever_is_shown_of_a_valid_history_is_valid",
        "calls_and_results_that_lack_each_other_are_not_shown",
    ),
    "7: an unknown model is an error, and counting tokens needs the network": [
        *held_off("models/test_openai", "what_is_known_of_a_model_comes_from_its_name"),
        *held_off("models/test_tokens", "a_vocabulary_is_only_looked_for_where_a_model_has_one"),
    ],
    "8: providers that are not OpenAI refuse what they are sent": held_off(
        "models/test_dialects",
        "whatever_is_said_fits_afterwards_and_fits_for_good",
        "system_messages_in_the_middle_are_joined_at_the_front_where_only_one_is_accepted",
        "what_a_provider_wants_back_stays_with_calls_that_are_made_anew",
    ),
    "9: small models choose the wrong speaker, or none": held_off(
        "test_selector",
        "a_model_that_keeps_to_schemas_can_only_name_candidates",
        "a_model_that_answers_nonsense_is_asked_so_often_and_then_it_goes_round",
        "a_name_is_found_however_it_is_written",
    ),
    "10: a ledger that cannot be parsed ends the run": held_off(
        "test_magentic",
        "a_ledger_in_a_fence_or_between_words_is_read",
        "a_ledger_that_cannot_be_used_is_asked_for_again_with_the_exact_error",
        "nonsense_for_ever_ends_in_the_stated_fallback",
    ),
    "11: the defaults of the tool loop surprise": [
        *held_off("test_assistant", "a_summary_covers_every_iteration"),
        *held_off("test_check", "an_agent_whose_answer_is_what_its_tool_returns_is_a_warning"),
    ],
    "12: structured messages must be registered, and lose their type": [
        *held_off("test_traps", "a_structured_answer_needs_no_registration_in_a_team"),
        *held_off("test_autogen_files", "a_structured_message_comes_back_with_the_type_its_agent_declares"),
    ],
    "13: results of tools are Python's repr, or lost in a handoff": [
        *held_off("test_tools", "what_is_not_text_becomes_json_but_a_lone_none"),
        *held_off("test_golden", "g8_a_handoff_carries_the_other_calls_and_their_results"),
    ],
    "14: people in web applications block a team, and nothing can be paused": [
        *held_off("test_any_team", "people_anywhere_who_answer_later_make_no_difference"),
        *held_off("test_people_everywhere", "a_person_answered_later_leads_to_what_one_asked_at_once_does"),
        *held_off("test_steering", "a_paused_team_takes_no_turn_and_then_goes_on_as_if_it_had_not_been"),
    ],
    "17: a cache gives the wrong answer": held_off(
        "models/test_caching",
        "tool_choice_and_every_other_argument_make_another_request",
        "clients_that_share_a_store_do_not_get_each_others_answers",
        "the_stored_object_is_never_changed_nor_handed_out",
        "what_a_store_raises_is_raised",
    ),
    "18: loops run away, and nothing bounds the cost": [
        *held_off(
            "test_teams",
            "a_limit_ends_the_run_with_what_there_is",
            "an_outer_limit_ends_the_outer_run_from_inside_a_nested_team",
        ),
        *held_off("test_usage", "a_cost_limit_does_not_go_on_when_a_price_turned_out_to_be_unknown"),
        *held_off("test_any_team", "a_drawn_team_cut_by_any_limit_goes_on"),
    ],
    "19: nothing waits for rate limits, tries again or falls back": [
        *held_off("models/test_http", "the_provider_says_how_long_to_wait", "waits_grow_and_differ_by_chance"),
        *held_off("models/test_pacing", "no_minute_holds_more_requests_than_are_allowed"),
        *held_off("models/test_wrappers", "the_next_client_is_asked_where_the_first_one_fails"),
    ],
    "20: memory grows": [
        *held_off("test_population", "many_short_sessions_leave_memory_flat"),
        *held_off("test_actors", "only_so_many_topics_are_remembered"),
        *held_off("test_cancellation", "a_done_future_leaves_nothing_in_a_long_lived_token"),
        *held_off("test_many_sessions", "fifty_sessions_of_one_team_at_once_do_not_mix"),
    ],
}
