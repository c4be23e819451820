//! Owns the DescribeCluster request (key 60) and its response, versions 0 to 2.
//! Does not know the cluster.
//! Keeps: operations that were not asked for are `i32::MIN`.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks for the brokers and the controller.
    pub struct DescribeClusterRequest, versions 0..=2, flexible 0 {
        include_cluster_authorized_operations: bool => 0..;
        /// 1: brokers; 2: controllers.
        endpoint_type: i8 => 1.. = 1;
        include_fenced_brokers: bool => 2..;
    }
}

wire_struct! {
    /// The brokers and the controller.
    pub struct DescribeClusterResponse, versions 0..=2, flexible 0 {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
        endpoint_type: i8 => 1.. = 1;
        cluster_id: Str => 0..;
        /// -1 if unknown.
        controller_id: i32 => 0.. = -1;
        brokers: Vec<DescribeClusterBroker> => 0..;
        cluster_authorized_operations: i32 => 0.. = i32::MIN;
    }
}

wire_struct! {
    /// Where a broker listens.
    pub struct DescribeClusterBroker, versions 0..=2, flexible 0 {
        broker_id: i32 => 0..;
        host: Str => 0..;
        port: i32 => 0..;
        rack: Option<Str> => 0..;
        is_fenced: bool => 2..;
    }
}

wire_api!(
    DescribeCluster,
    DescribeClusterRequest,
    DescribeClusterResponse
);
