//! Owns the comparison of the APIs for transactions: which field is in which version.
//! Does not know how values are made or compared.
//! Keeps: every struct of every message of these APIs is listed.
use kafka_protocol::messages::{
    add_offsets_to_txn_request, add_offsets_to_txn_response, add_partitions_to_txn_request,
    add_partitions_to_txn_response, describe_transactions_request, describe_transactions_response,
    end_txn_request, end_txn_response, list_transactions_request, list_transactions_response,
    txn_offset_commit_request, txn_offset_commit_response, write_txn_markers_request,
    write_txn_markers_response,
};
use millrace_net::wire::{
    add_offsets_to_txn, add_partitions_to_txn, describe_transactions, end_txn, list_transactions,
    txn_offset_commit, write_txn_markers,
};

use crate::support::{mirror, oracle_tests};

mirror! {
    add_partitions_to_txn::AddPartitionsToTxnRequest => add_partitions_to_txn_request::AddPartitionsToTxnRequest {
        transactions: 4..,
        v3_and_below_transactional_id: 0..=3,
        v3_and_below_producer_id: 0..=3,
        v3_and_below_producer_epoch: 0..=3,
        v3_and_below_topics: 0..=3,
    }
}

mirror! {
    add_partitions_to_txn::AddPartitionsToTxnTransaction => add_partitions_to_txn_request::AddPartitionsToTxnTransaction {
        transactional_id: 4..,
        producer_id: 4..,
        producer_epoch: 4..,
        verify_only: 4..,
        topics: 4..,
    }
}

mirror! {
    add_partitions_to_txn::AddPartitionsToTxnTopic => add_partitions_to_txn_request::AddPartitionsToTxnTopic {
        name: 0..,
        partitions: 0..,
    }
}

mirror! {
    add_partitions_to_txn::AddPartitionsToTxnResponse => add_partitions_to_txn_response::AddPartitionsToTxnResponse {
        throttle_time_ms: 0..,
        error_code: 4..,
        results_by_transaction: 4..,
        results_by_topic_v3_and_below: 0..=3,
    }
}

mirror! {
    add_partitions_to_txn::AddPartitionsToTxnResult => add_partitions_to_txn_response::AddPartitionsToTxnResult {
        transactional_id: 4..,
        topic_results: 4..,
    }
}

mirror! {
    add_partitions_to_txn::AddPartitionsToTxnTopicResult => add_partitions_to_txn_response::AddPartitionsToTxnTopicResult {
        name: 0..,
        results_by_partition: 0..,
    }
}

mirror! {
    add_partitions_to_txn::AddPartitionsToTxnPartitionResult => add_partitions_to_txn_response::AddPartitionsToTxnPartitionResult {
        partition_index: 0..,
        partition_error_code: 0..,
    }
}

mirror! {
    add_offsets_to_txn::AddOffsetsToTxnRequest => add_offsets_to_txn_request::AddOffsetsToTxnRequest {
        transactional_id: 0..,
        producer_id: 0..,
        producer_epoch: 0..,
        group_id: 0..,
    }
}

mirror! {
    add_offsets_to_txn::AddOffsetsToTxnResponse => add_offsets_to_txn_response::AddOffsetsToTxnResponse {
        throttle_time_ms: 0..,
        error_code: 0..,
    }
}

mirror! {
    end_txn::EndTxnRequest => end_txn_request::EndTxnRequest {
        transactional_id: 0..,
        producer_id: 0..,
        producer_epoch: 0..,
        committed: 0..,
    }
}

mirror! {
    end_txn::EndTxnResponse => end_txn_response::EndTxnResponse {
        throttle_time_ms: 0..,
        error_code: 0..,
        producer_id: 5..,
        producer_epoch: 5..,
    }
}

mirror! {
    write_txn_markers::WriteTxnMarkersRequest => write_txn_markers_request::WriteTxnMarkersRequest {
        markers: 0..,
    }
}

mirror! {
    write_txn_markers::WritableTxnMarker => write_txn_markers_request::WritableTxnMarker {
        producer_id: 0..,
        producer_epoch: 0..,
        transaction_result: 0..,
        topics: 0..,
        coordinator_epoch: 0..,
    }
}

mirror! {
    write_txn_markers::WritableTxnMarkerTopic => write_txn_markers_request::WritableTxnMarkerTopic {
        name: 0..,
        partition_indexes: 0..,
    }
}

mirror! {
    write_txn_markers::WriteTxnMarkersResponse => write_txn_markers_response::WriteTxnMarkersResponse {
        markers: 0..,
    }
}

mirror! {
    write_txn_markers::WritableTxnMarkerResult => write_txn_markers_response::WritableTxnMarkerResult {
        producer_id: 0..,
        topics: 0..,
    }
}

mirror! {
    write_txn_markers::WritableTxnMarkerTopicResult => write_txn_markers_response::WritableTxnMarkerTopicResult {
        name: 0..,
        partitions: 0..,
    }
}

mirror! {
    write_txn_markers::WritableTxnMarkerPartitionResult => write_txn_markers_response::WritableTxnMarkerPartitionResult {
        partition_index: 0..,
        error_code: 0..,
    }
}

mirror! {
    txn_offset_commit::TxnOffsetCommitRequest => txn_offset_commit_request::TxnOffsetCommitRequest {
        transactional_id: 0..,
        group_id: 0..,
        producer_id: 0..,
        producer_epoch: 0..,
        generation_id: 3..,
        member_id: 3..,
        group_instance_id: 3..,
        topics: 0..,
    }
}

mirror! {
    txn_offset_commit::TxnOffsetCommitRequestTopic => txn_offset_commit_request::TxnOffsetCommitRequestTopic {
        name: 0..=5,
        partitions: 0..,
    }
}

mirror! {
    txn_offset_commit::TxnOffsetCommitRequestPartition => txn_offset_commit_request::TxnOffsetCommitRequestPartition {
        partition_index: 0..,
        committed_offset: 0..,
        committed_leader_epoch: 2..,
        committed_metadata: 0..,
    }
}

mirror! {
    txn_offset_commit::TxnOffsetCommitResponse => txn_offset_commit_response::TxnOffsetCommitResponse {
        throttle_time_ms: 0..,
        topics: 0..,
    }
}

mirror! {
    txn_offset_commit::TxnOffsetCommitResponseTopic => txn_offset_commit_response::TxnOffsetCommitResponseTopic {
        name: 0..=5,
        partitions: 0..,
    }
}

mirror! {
    txn_offset_commit::TxnOffsetCommitResponsePartition => txn_offset_commit_response::TxnOffsetCommitResponsePartition {
        partition_index: 0..,
        error_code: 0..,
    }
}

mirror! {
    describe_transactions::DescribeTransactionsRequest => describe_transactions_request::DescribeTransactionsRequest {
        transactional_ids: 0..,
    }
}

mirror! {
    describe_transactions::DescribeTransactionsResponse => describe_transactions_response::DescribeTransactionsResponse {
        throttle_time_ms: 0..,
        transaction_states: 0..,
    }
}

mirror! {
    describe_transactions::DescribedTransaction => describe_transactions_response::TransactionState {
        error_code: 0..,
        transactional_id: 0..,
        transaction_state: 0..,
        transaction_timeout_ms: 0..,
        transaction_start_time_ms: 0..,
        producer_id: 0..,
        producer_epoch: 0..,
        topics: 0..,
    }
}

mirror! {
    describe_transactions::DescribedTransactionTopic => describe_transactions_response::TopicData {
        topic: 0..,
        partitions: 0..,
    }
}

mirror! {
    list_transactions::ListTransactionsRequest => list_transactions_request::ListTransactionsRequest {
        state_filters: 0..,
        producer_id_filters: 0..,
        duration_filter: 1..,
        transactional_id_pattern: 2..,
    }
}

mirror! {
    list_transactions::ListTransactionsResponse => list_transactions_response::ListTransactionsResponse {
        throttle_time_ms: 0..,
        error_code: 0..,
        unknown_state_filters: 0..,
        transaction_states: 0..,
    }
}

mirror! {
    list_transactions::ListedTransaction => list_transactions_response::TransactionState {
        transactional_id: 0..,
        producer_id: 0..,
        transaction_state: 0..,
    }
}

oracle_tests! {
    add_partitions_to_txn: add_partitions_to_txn::AddPartitionsToTxnRequest => kafka_protocol::messages::AddPartitionsToTxnRequest, add_partitions_to_txn::AddPartitionsToTxnResponse => kafka_protocol::messages::AddPartitionsToTxnResponse;
    add_offsets_to_txn: add_offsets_to_txn::AddOffsetsToTxnRequest => kafka_protocol::messages::AddOffsetsToTxnRequest, add_offsets_to_txn::AddOffsetsToTxnResponse => kafka_protocol::messages::AddOffsetsToTxnResponse;
    end_txn: end_txn::EndTxnRequest => kafka_protocol::messages::EndTxnRequest, end_txn::EndTxnResponse => kafka_protocol::messages::EndTxnResponse;
    write_txn_markers: write_txn_markers::WriteTxnMarkersRequest => kafka_protocol::messages::WriteTxnMarkersRequest, write_txn_markers::WriteTxnMarkersResponse => kafka_protocol::messages::WriteTxnMarkersResponse;
    txn_offset_commit: txn_offset_commit::TxnOffsetCommitRequest => kafka_protocol::messages::TxnOffsetCommitRequest, txn_offset_commit::TxnOffsetCommitResponse => kafka_protocol::messages::TxnOffsetCommitResponse;
    describe_transactions: describe_transactions::DescribeTransactionsRequest => kafka_protocol::messages::DescribeTransactionsRequest, describe_transactions::DescribeTransactionsResponse => kafka_protocol::messages::DescribeTransactionsResponse;
    list_transactions: list_transactions::ListTransactionsRequest => kafka_protocol::messages::ListTransactionsRequest, list_transactions::ListTransactionsResponse => kafka_protocol::messages::ListTransactionsResponse;
}
