//! Owns DescribeCluster.
//! Does not know how nodes join.
//! Invariant: only what clients can reach is shown.

use super::{allowed, Outcome};
use crate::shard::ShardNet;
use crate::wire::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use crate::wire::ErrorCode;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

impl Outcome for DescribeClusterResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if let Some((error, message)) = refused(request.endpoint_type) {
        // The endpoint type stays at its default: version 0 cannot carry another.
        return DescribeClusterResponse {
            error_code: error.code(),
            error_message: Some(message.into()),
            ..Default::default()
        };
    }
    let image = shard.broker.image();
    let faces = shard.faces(&image);
    let brokers = faces
        .brokers()
        .into_iter()
        .map(|node| DescribeClusterBroker {
            broker_id: node.id,
            host: node.host,
            port: node.port,
            rack: node.rack,
            is_fenced: false,
        });
    DescribeClusterResponse {
        cluster_id: image.cluster_id.clone().into(),
        controller_id: faces.controller(),
        brokers: brokers.collect(),
        cluster_authorized_operations: allowed::if_asked(
            request.include_cluster_authorized_operations,
            allowed::WITH_CLUSTER,
        ),
        ..Default::default()
    }
}

fn refused(endpoint_type: i8) -> Option<(ErrorCode, &'static str)> {
    match endpoint_type {
        BROKERS => None,
        CONTROLLERS => Some((
            ErrorCode::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
        )),
        i8::MIN..=i8::MAX => Some((ErrorCode::UnsupportedEndpointType, "Unsupported endpoint type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_asked_for_elsewhere() {
        assert_eq!(refused(1), None);
        assert_eq!(refused(2).unwrap().0, ErrorCode::MismatchedEndpointType);
        assert_eq!(refused(0).unwrap().0, ErrorCode::UnsupportedEndpointType);
    }
}
