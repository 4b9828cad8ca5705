"""Every fault that the library is built for, and the tests that break things so. A fault without a test fails here.

Beneath a fault stand files, and beneath a file its tests. A test may be named with one of its cases: ``test_x [case]``;
the case must stand in the file, or where the file has its cases from.
"""

import ast
import functools
import re

import pytest

from .named_tests import ROOT, exists, is_one_test

ON_THE_WORKER = r"""
kill -9 of the child
  tests/integration/test_faults.py
    test_a_delivery_whose_child_process_is_killed_is_run_again
  tests/integration/test_crashes.py
    test_a_receiver_that_ends_its_process_every_time_is_dead_after_the_limit_and_others_get_through [be_killed]
  tests/integration/test_batches.py
    test_who_ends_the_process_meets_nobody_twice_and_all_others_succeed
kill -9 of the whole worker
  tests/integration/test_faults.py
    test_a_delivery_whose_worker_is_killed_is_run_again
  tests/integration/test_worker_faults.py
    TestQuorumQueues::test_a_delivery_whose_whole_worker_is_killed_is_run_again
  tests/integration/test_crashes.py
    test_those_that_only_stood_behind_one_that_ends_the_whole_worker_are_delivered
warm shutdown
  tests/integration/test_shutdown.py
    test_a_warm_shutdown_finishes_what_runs_and_gives_the_rest_back
    test_the_other_pools_finish_what_runs_and_give_the_rest_back
  tests/integration/test_crashes.py
    test_what_a_warm_shutdown_gives_back_costs_one_crash_at_most
cold shutdown
  tests/integration/test_shutdown.py
    test_a_cold_shutdown_breaks_off_what_runs_which_runs_again_and_uses_up_no_retry
    test_a_soft_shutdown_lets_it_finish_in_time_and_otherwise_runs_it_again
    test_in_the_solo_pool_a_cold_shutdown_raises_in_the_receiver_and_counts_as_a_retry
children that are replaced
  tests/integration/test_shutdown.py
    TestChildrenThatComeAndGo::test_a_child_that_is_replaced_takes_nothing_with_it
    TestChildrenThatComeAndGo::test_autoscale_ends_only_children_that_have_nothing_to_do
sys.exit
  tests/integration/test_crashes.py
    test_what_a_receiver_raises_ends_no_worker_whatever_it_is [exit_python]
os._exit
  tests/integration/test_crashes.py
    test_a_receiver_that_ends_its_process_every_time_is_dead_after_the_limit_and_others_get_through [leave]
    test_a_receiver_that_ends_the_whole_worker_every_time_is_dead_after_the_crash_limit
KeyboardInterrupt
  tests/integration/test_crashes.py
    test_what_a_receiver_raises_ends_no_worker_whatever_it_is [interrupt]
MemoryError
  tests/integration/test_crashes.py
    test_what_a_receiver_raises_ends_no_worker_whatever_it_is [run_out_of_memory]
endless recursion
  tests/integration/test_crashes.py
    test_what_a_receiver_raises_ends_no_worker_whatever_it_is [recurse]
  tests/test_crashes.py
    TestAsyncReceivers::test_endless_recursion_is_raised
soft time limit
  tests/integration/test_worker_faults.py
    TestSoftTimeLimits::test_a_soft_time_limit_raises_in_the_receiver_and_ends_in_a_retry
    TestSoftTimeLimits::test_the_other_pools_have_no_soft_time_limits_and_let_it_run_to_its_end
  tests/test_time_limits.py
    TestMembersOfABatch::test_the_soft_limit_is_raised_in_that_one_only
hard time limit
  tests/integration/test_crashes.py
    test_a_receiver_that_runs_into_its_hard_time_limit_every_time_is_dead_after_the_crash_limit
one of a batch that raises
  tests/integration/test_batches.py
    test_a_crowd_is_welcomed_in_a_few_messages_and_who_fails_is_retried_alone
raising
  tests/integration/test_deliveries.py
    test_a_receiver_that_raises_once_succeeds_on_retry_under_the_same_id
    test_a_receiver_that_always_raises_ends_dead
  tests/integration/test_processes.py
    test_every_pool_retries_discards_and_lets_die
duplicate by visibility timeout
  tests/integration/test_worker_faults.py
    TestTheBrokerDeliversTwice::test_longer_than_the_visibility_timeout_of_redis_is_a_duplicate_under_one_id
RabbitMQ consumer timeout
  tests/integration/test_worker_faults.py
    TestTheConsumerTimeoutOfRabbitMQ::test_a_countdown_longer_than_it_ends_the_worker_and_not_the_delivery
    TestTheConsumerTimeoutOfRabbitMQ::test_a_receiver_longer_than_it_ends_the_worker_and_runs_again_under_its_id
broker restarted while a receiver runs
  tests/integration/test_worker_faults.py
    test_the_broker_is_restarted_while_a_receiver_runs_whose_acknowledgement_it_never_hears
database down
  tests/integration/test_faults.py
    test_a_delivery_waits_for_a_database_that_is_away
database restarted
  tests/integration/test_worker_faults.py
    TestStaleConnections::test_one_that_broke_between_deliveries_costs_no_retry [server restarted]
    TestStaleConnections::test_one_that_broke_within_a_receiver_costs_no_retry_but_in_a_transaction [server restarted]
stale connection
  tests/integration/test_worker_faults.py
    TestStaleConnections::test_one_that_broke_between_deliveries_costs_no_retry [session ended]
    TestStaleConnectionsToMariaDB::test_one_that_was_killed_between_deliveries
    TestStaleConnectionsToMariaDB::test_one_that_was_killed_within_a_receiver
instance deleted before delivery
  tests/integration/test_deliveries.py
    test_a_delivery_about_a_row_that_is_gone_is_discarded
  tests/test_delivery.py
    TestRowsAndDatabases::test_a_row_that_is_gone_follows_the_policy
replica lag
  tests/test_sender_faults.py
    TestReplicaLag::test_replica_lag_is_not_seen_for_a_reference_is_read_where_is_written
    TestReplicaLag::test_an_instance_that_was_read_from_the_replica_is_read_where_is_written
receiver renamed
  tests/integration/test_rolling_releases.py
    TestOldSendersAndNewWorkers::test_a_receiver_that_was_renamed_gets_what_was_sent_before_by_its_alias
    TestNewSendersAndOldWorkers::test_the_new_name_of_a_receiver_that_was_renamed
receiver removed
  tests/integration/test_rolling_releases.py
    TestOldSendersAndNewWorkers::test_a_receiver_that_was_removed_ends_dead_and_the_signals_others_run
module gone
  tests/integration/test_rolling_releases.py
    TestOldSendersAndNewWorkers::test_a_receiver_whose_module_is_gone_ends_dead
wire version plus and minus one
  tests/integration/test_rolling_releases.py
    TestTheWire::test_a_message_of_the_next_version_that_an_old_worker_gets_first_is_run_once_by_the_new_one
    TestTheWire::test_messages_of_every_released_version_run_on_a_worker_of_the_next
save-in-receiver loop
  tests/test_delivery.py
    TestReceiversThatSaveWhatTheyListenTo::test_it_runs_once_and_what_its_save_causes_is_dead_with_an_explanation
    TestPayloadsThatCannotRun::test_a_chain_of_deliveries_has_an_end
nested send in a receiver that fails
  tests/integration/test_worker_faults.py
    TestNestedSends::test_in_a_transaction_that_is_rolled_back_they_never_leave
    TestNestedSends::test_in_autocommit_they_have_left_when_the_receiver_fails
eta in year 3000
  tests/integration/test_worker_faults.py
    test_a_countdown_until_the_year_3000_waits_and_the_others_go_on
  tests/test_crashes.py
    TestWhatAReceiverMayRaise::test_a_retry_beyond_all_clocks_waits_a_hundred_years_and_keeps_nobody_waiting
one slow or poison delivery
  tests/integration/test_worker_faults.py
    test_one_slow_and_one_poison_delivery_delay_no_others
"""

AT_THE_SENDER = r"""
SIGKILL before commit
  tests/integration/test_broker_faults.py
    TestASenderThatIsKilled::test_sigkill [before the commit]
  tests/integration/test_losses.py
    test_a_sender_that_is_killed_before_its_commit_leaves_neither_row_nor_delivery
SIGKILL between commit and publish
  tests/integration/test_broker_faults.py
    TestASenderThatIsKilled::test_sigkill [between commit and publish]
  tests/integration/test_losses.py
    test_what_a_sender_had_not_published_when_it_was_killed_is_lost_although_its_row_is_there
SIGKILL after publish
  tests/integration/test_broker_faults.py
    TestASenderThatIsKilled::test_sigkill [after publish]
  tests/integration/test_losses.py
    test_what_a_sender_had_published_when_it_was_killed_is_delivered
broker refused
  tests/integration/test_broker_faults.py
    TestABrokerThatIsAway::test_connection_refused
    TestABrokerThatIsAway::test_a_host_name_that_cannot_be_resolved
broker frozen
  tests/integration/test_broker_faults.py
    TestABrokerThatIsAway::test_a_frozen_broker_is_waited_for_once_and_not_by_each_of_a_hundred
    TestInTheMiddleOfAFlush::test_the_broker_freezes
broker alarm
  tests/integration/test_broker_faults.py
    TestRabbitMQ::test_memory_alarm
connection closed
  tests/integration/test_broker_faults.py
    TestABrokerThatIsAway::test_connection_reset
    TestInTheMiddleOfAFlush::test_the_connection_is_reset
broker restarted with persistence
  tests/integration/test_broker_faults.py
    TestRedis::test_a_restart_with_persistence_keeps_what_was_told_as_published
    TestRabbitMQ::test_a_restart_keeps_what_was_told_as_published
    TestInTheMiddleOfAFlush::test_the_broker_is_restarted
broker restarted without persistence
  tests/integration/test_broker_faults.py
    TestRedis::test_a_restart_without_persistence_loses_what_waited_and_nothing_that_is_sent_then
  tests/integration/test_losses.py
    test_what_waits_in_a_redis_without_persistence_is_lost_when_it_restarts
queue deleted
  tests/integration/test_broker_faults.py
    TestRabbitMQ::test_a_queue_that_is_deleted_is_declared_again_and_nothing_is_lost
FLUSHALL
  tests/integration/test_broker_faults.py
    TestRoutes::test_flushall
  tests/integration/test_losses.py
    test_what_waits_in_redis_is_lost_with_flushall_and_nothing_pretends_otherwise
READONLY replica
  tests/integration/test_broker_faults.py
    TestRedis::test_readonly_replica
maxmemory
  tests/integration/test_broker_faults.py
    TestRedis::test_maxmemory_reached
key of the wrong type
  tests/integration/test_broker_faults.py
    TestRedis::test_a_key_of_the_wrong_type
10 MB and 200 MB kwargs
  tests/integration/test_broker_faults.py
    TestLargeMessages::test_too_large_is_an_error_at_the_send_by_default
    TestLargeMessages::test_10_mb_are_published_where_the_project_allows_it
    TestRedis::test_200_mb_are_published
    TestRabbitMQ::test_a_message_larger_than_rabbitmq_takes_stops_no_other
100,000 saves in one transaction
  tests/test_sender_faults.py
    test_a_hundred_thousand_saves_in_one_transaction_have_one_hook_and_leave_together_in_their_order
fork after publish
  tests/integration/test_processes.py
    TestForks::test_children_of_both_moments_and_their_parent_send_at_once_and_lose_nothing
    TestForks::test_a_multiprocessing_pool_loses_nothing
    test_every_request_to_gunicorn_is_delivered_once_also_when_it_has_published_before_the_fork
threads
  tests/integration/test_processes.py
    test_twenty_threads_lose_nothing
    test_every_request_to_gunicorn_is_delivered_once_also_when_it_has_published_before_the_fork [gthread]
gevent
  tests/integration/test_processes.py
    test_every_request_to_gunicorn_is_delivered_once_also_when_it_has_published_before_the_fork [gevent]
asyncio
  tests/integration/test_processes.py
    TestASGI::test_what_async_views_send_is_delivered
    TestASGI::test_a_frozen_broker_makes_the_view_wait_and_not_the_event_loop
savepoints inner
  tests/test_publisher.py
    TestTransactions::test_a_rolled_back_savepoint_takes_only_its_own_with_it
  tests/integration/test_deliveries.py
    test_a_rolled_back_savepoint_delivers_nothing_of_it
savepoints manual
  tests/test_sender_faults.py
    TestSavepointsByHand::test_one_that_is_rolled_back_by_hand_is_seen_by_no_hook
    TestSavepointsByHand::test_its_rows_are_gone_and_so_the_delivery_about_one_is_discarded
    TestSavepointsByHand::test_one_that_is_committed_by_hand_sends
set_rollback
  tests/test_publisher.py
    TestTransactions::test_set_rollback_publishes_nothing
  tests/test_sender_faults.py
    TestSavepointsByHand::test_set_rollback_in_an_inner_block_takes_only_the_block
    TestSavepointsByHand::test_a_set_rollback_that_is_taken_back_sends
hook in a hook
  tests/test_publisher.py
    TestTransactions::test_a_hook_may_send
    TestTransactions::test_a_hook_may_open_a_transaction_of_its_own
  tests/test_sender_faults.py
    TestHooksOfOthers::test_a_hook_in_a_hook_may_send_and_save
earlier hook raises
  tests/test_sender_faults.py
    TestHooksOfOthers::test_an_earlier_hook_that_raises_takes_ours_with_it_unless_it_is_robust
    TestHooksOfOthers::test_a_hook_that_raises_after_ours_changes_nothing
autocommit off
  tests/test_publisher.py
    TestTransactions::test_without_autocommit_nobody_knows_the_commit
TestCase
  tests/test_publisher.py
    TestInsideTestCase::test_what_a_block_sends_is_captured_and_published
    TestInsideTestCase::test_a_rolled_back_savepoint_is_not_captured
ATOMIC_REQUESTS error after send
  tests/test_publisher.py
    TestTransactions::test_an_error_after_the_send_with_atomic_requests_publishes_nothing
instance mutated between send and commit
  tests/test_publisher.py
    TestTransactions::test_what_is_sent_is_what_was_true_at_the_send
  tests/test_sender_faults.py
    TestInstancesThatChangeBetweenSendAndCommit::test_saved_or_not_a_reference_is_the_row_and_a_snapshot_what_it_was
    TestInstancesThatChangeBetweenSendAndCommit::test_written_past_the_signal_a_reference_sees_it_and_a_snapshot_does_not
    TestInstancesThatChangeBetweenSendAndCommit::test_given_another_key_it_is_still_the_row_of_the_send
second database
  tests/test_publisher.py
    TestSeveralDatabases::test_the_commit_of_the_database_that_was_written_is_awaited
autocommit save
  tests/test_sender_faults.py
    test_a_save_in_autocommit_is_published_at_once_and_with_its_row_there
  tests/integration/test_deliveries.py
    test_a_save_outside_a_transaction_is_delivered_at_once
durable atomic
  tests/test_sender_faults.py
    test_a_durable_atomic_block_is_waited_for_as_any
"""

IN_THE_MESSAGE = r"""
garbage
  tests/integration/test_hostile_messages.py
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [binary]
  tests/test_hostile_payloads.py
    test_what_we_have_not_signed_is_dead_and_nothing_of_it_is_done [garbage]
pickle
  tests/integration/test_hostile_messages.py
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [pickle]
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [pickle that says it is JSON]
  tests/test_hostile_payloads.py
    test_what_we_have_not_signed_is_dead_and_nothing_of_it_is_done [a pickle]
yaml
  tests/integration/test_hostile_messages.py
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [yaml]
non-list
  tests/integration/test_hostile_messages.py
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [a number]
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [a string]
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [null]
{}
  tests/integration/test_hostile_messages.py
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [an empty object]
deep nesting
  tests/integration/test_hostile_messages.py
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [arguments nested 900 deep]
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [arguments nested 100,000 deep]
  tests/test_hostile_payloads.py
    test_signed_json_that_we_could_not_write_again_is_dead [lists 900 deep]
gzip bomb
  tests/integration/test_hostile_messages.py
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [compressed by gzip]
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [50 MB]
NaN
  tests/test_hostile_payloads.py
    test_signed_json_that_we_could_not_write_again_is_dead [a bare NaN]
lone surrogates
  tests/test_hostile_payloads.py
    test_signed_json_that_we_could_not_write_again_is_dead [a lone surrogate]
    test_what_we_have_not_signed_is_dead_and_nothing_of_it_is_done [a lone surrogate]
10,000-digit integers
  tests/test_hostile_payloads.py
    test_signed_json_that_we_could_not_write_again_is_dead [digits]
marker keys
  tests/integration/test_hostile_messages.py
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [a marker of kombu's as the payload]
  tests/test_hostile_payloads.py
    test_the_decoder_imports_opens_and_starts_nothing [__type__]
embedded callbacks
  tests/integration/test_hostile_messages.py
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [embedded callbacks]
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [protocol 1 with callbacks]
  tests/integration/test_forgery.py
    test_no_other_task_is_called_on_a_message_s_word
dotted path to os.system
  tests/test_hostile_payloads.py
    test_a_name_that_is_no_key_of_the_registry_calls_nothing [os.system]
builtins
  tests/test_hostile_payloads.py
    test_a_name_that_is_no_key_of_the_registry_calls_nothing [builtins.eval]
attribute of attribute
  tests/test_hostile_payloads.py
    test_a_name_that_is_no_key_of_the_registry_calls_nothing [hostile.listens.__call__]
dunder
  tests/test_hostile_payloads.py
    test_a_name_that_is_no_key_of_the_registry_calls_nothing [.listens.__globals__]
    test_a_name_that_is_no_key_of_the_registry_calls_nothing [.__builtins__]
private
  tests/test_hostile_payloads.py
    test_a_name_that_is_no_key_of_the_registry_calls_nothing [._evaluated]
undecorated function
  tests/test_hostile_payloads.py
    test_a_name_that_is_no_key_of_the_registry_calls_nothing [.listens_to_nothing]
inline-only receiver
  tests/test_hostile_payloads.py
    test_a_name_that_is_no_key_of_the_registry_calls_nothing [.listens_inline]
receiver of another signal
  tests/test_hostile_payloads.py
    test_whatever_signal_is_named_the_receiver_is_the_one_that_is_called [.rang_inline]
1 MB path
  tests/test_hostile_payloads.py
    test_a_name_that_is_no_key_of_the_registry_calls_nothing [x.]
  tests/test_references.py
    test_a_path_of_a_megabyte_takes_no_time
newline in path
  tests/test_hostile_payloads.py
    test_a_name_that_is_no_key_of_the_registry_calls_nothing [hostile.listens\nDelivery 1 to x succeeded]
forged label
  tests/test_hostile_payloads.py
    test_a_model_or_an_alias_that_is_none_is_dead_or_waits [os.system]
    test_a_model_or_an_alias_that_is_none_is_dead_or_waits [shop.nobody]
  tests/integration/test_hostile_messages.py
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [a label with a new line]
pk as list, dict or SQL text
  tests/test_hostile_payloads.py
    test_a_primary_key_that_is_none_finds_no_row [1 OR 1=1]
    test_a_primary_key_that_is_none_finds_no_row [1; DROP TABLE shop_customer]
forged alias
  tests/test_hostile_payloads.py
    test_a_model_or_an_alias_that_is_none_is_dead_or_waits [nobody]
replay
  tests/test_hostile_payloads.py
    test_an_old_payload_is_replayed_in_vain_once_max_age_has_passed
  tests/integration/test_hostile_messages.py
    test_a_message_that_is_put_twice_runs_twice_under_one_id
header swap
  tests/integration/test_hostile_messages.py
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [arguments in the headers]
    test_a_hostile_message_runs_nothing_and_the_worker_goes_on [callbacks in the headers]
    test_a_message_for_no_task_of_the_project_is_celerys_and_the_worker_goes_on
bit flip
  tests/test_envelope.py
    test_no_flipped_bit_goes_unnoticed
  tests/test_hostile_payloads.py
    test_one_wrong_character_makes_it_dead
truncation
  tests/test_envelope.py
    test_no_missing_end_or_start_goes_unnoticed
  tests/test_hostile_payloads.py
    test_what_we_have_not_signed_is_dead_and_nothing_of_it_is_done [an end cut off]
future version
  tests/test_hostile_payloads.py
    test_a_newer_version_waits_whatever_it_says
    test_what_we_have_not_signed_is_dead_and_nothing_of_it_is_done [a version put in]
"""

SECRETS = r"""
broker body
  tests/integration/test_secrets.py
    test_no_secret_gets_out
  tests/test_encryption.py
    TestWhatCanBeRead::test_only_what_the_worker_goes_by_is_readable
argsrepr and kwargsrepr headers
  tests/test_sender_faults.py
    test_the_headers_of_a_message_show_no_value
events
  tests/integration/test_secrets.py
    test_no_secret_gets_out
remote control
  tests/integration/test_secrets.py
    test_no_secret_gets_out
  tests/test_secrets.py
    TestCelerysOwn::test_remote_control_is_told_no_argument
result backend
  tests/integration/test_secrets.py
    test_no_secret_gets_out [django-db]
  tests/integration/test_works_with.py
    test_results_in_the_database_and_events_hold_no_values_and_start_no_chain
worker log
  tests/integration/test_secrets.py
    test_no_secret_gets_out
    test_a_worker_that_lacks_our_app_logs_what_is_not_encrypted
exceptions
  tests/test_secrets.py
    test_no_error_of_a_value_that_cannot_travel_tells_it
    test_no_error_of_a_payload_that_cannot_be_decoded_tells_it
"""


IN_THE_OUTBOX = r"""
two relays at once
  tests/integration/test_relay.py
    test_several_that_work_at_once_ring_once_for_each_row
  tests/outbox/test_relay.py
    TestABatch::test_marks_no_row_twice_although_two_work_at_once
commit order is not id order
  tests/outbox/test_keyed.py
    TestOrder::test_has_a_row_that_became_visible_late_run_next
  tests/outbox/test_keyed_model.py
    test_keys_are_kept_whatever_happens_in_whatever_order
poison row
  tests/integration/test_relay.py
    test_a_quarantined_delivery_tells_of_the_process_and_of_the_signal
  tests/outbox/test_answering.py
    TestAPayloadThatCannotBeRun::test_whose_key_is_gone_is_dead_and_kept_and_told
  tests/outbox/test_relay.py
    TestAQueueThatRefuses::test_keeps_nobody_waiting_whatever_it_is_that_it_says
relay killed between publish and update
  tests/outbox/test_relay.py
    TestABatch::test_that_is_broken_off_before_the_ring_rings_after_ring_again
    TestABatch::test_that_is_broken_off_before_the_mark_changes_nothing
  tests/integration/test_relay.py
    test_the_relay_that_is_killed_is_started_again_and_leads_again
table missing during migrate
  tests/outbox/test_durable.py
    TestSeveralDatabases::test_a_database_without_the_table_says_how_to_get_it
  tests/outbox/test_outbox_checks.py
    TestTables::test_one_that_is_missing_where_deliveries_are_sent_is_a_warning_that_names_them
own rows firing receivers
  tests/outbox/test_durable.py
    TestOwnRows::test_fire_no_receivers_at_any_step_of_their_lives
bloat, a million finished rows
  tests/outbox/test_plans.py
    test_a_claim_and_its_completion_use_indexes
    test_the_relay_uses_indexes
    test_pruning_uses_indexes
relay stopped for an hour
  tests/integration/test_relay.py
    test_a_backlog_is_drained_by_the_command_and_says_how_much
transaction-pooling proxies
  tests/outbox/test_relay.py
    TestTurns::test_one_leaves_nothing_behind_in_the_session_of_a_pooled_connection
durable atomic
  tests/outbox/test_answering.py
    TestAnAtomicReceiver::test_that_opens_a_durable_block_is_dead_with_an_explanation
autocommit save
  tests/outbox/test_durable.py
    TestOutsideATransaction::test_a_save_in_autocommit_is_one
"""


def proofs_in(text: str) -> dict[str, list[tuple[str, str]]]:
    """The tests of a text, with their cases, by the fault."""
    found: dict[str, list[tuple[str, str]]] = {}
    fault = file = ""
    for line in text.strip().splitlines():
        depth, word = len(line) - len(line.lstrip()), line.strip()
        if depth == 0:
            fault = word
            found[fault] = []
        elif depth == 2:
            file = word
        else:
            test, case = re.fullmatch(r"(\S+)(?: \[(.+)\])?", word).groups(default="")  # type: ignore[union-attr]
            found[fault].append((f"{file}::{test}", case))
    return found


GROUPS = {
    "on the worker": proofs_in(ON_THE_WORKER),
    "at the sender": proofs_in(AT_THE_SENDER),
    "in the message": proofs_in(IN_THE_MESSAGE),
    "in the outbox": proofs_in(IN_THE_OUTBOX),
    "secrets": proofs_in(SECRETS),
}

#: Where a file has its cases from, if not from itself.
CASES = {
    "tests/integration/test_crashes.py": "tests/integration/project/perils/receivers.py",
    "tests/integration/test_hostile_messages.py": "tests/integration/letters.py",
}


@functools.cache
def words_of(file: str) -> set[str]:
    """The names of functions in a file, its texts (of an f-string each part), and the words in these."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {ascii(node.value)[1:-1], *node.value.split()}
    return found


@pytest.mark.parametrize(("group", "fault"), [(group, fault) for group, faults in GROUPS.items() for fault in faults])
def test_every_fault_has_a_test_that_exists(group: str, fault: str):
    assert GROUPS[group][fault]
    for test, case in GROUPS[group][fault]:
        assert is_one_test(test), test
        assert exists(test), f"{test} does not exist"
        file = test.partition("::")[0]
        assert not case or case in words_of(file) | words_of(CASES.get(file, file)), f"{test} has no case {case!r}"


def test_no_test_stands_for_a_fault_twice():
    for faults in GROUPS.values():
        for fault, proofs in faults.items():
            assert len(set(proofs)) == len(proofs), fault


def test_a_fault_without_a_test_and_a_test_that_does_not_exist_would_be_seen():
    assert proofs_in("one fault\nanother fault\n  tests/x.py\n    test_y [a case]\n    test_z") == {
        "one fault": [],
        "another fault": [("tests/x.py::test_y", "a case"), ("tests/x.py::test_z", "")],
    }
    assert not exists("tests/test_fault_list.py::test_of_nobody")
    assert "no such case" not in words_of("tests/integration/letters.py")
