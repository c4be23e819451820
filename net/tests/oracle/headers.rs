//! Owns the comparison of frames, headers, the table of versions and the error codes.
//! Does not know bodies.
//! Keeps: whatever the table advertises, a client of the oracle's making can use.
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    ApiKey as OracleKey, RequestHeader as OracleHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use millrace_net::wire::api_versions::{self, ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use millrace_net::wire::fetch::{
    FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use millrace_net::wire::frame::{self, RequestHeader};
use millrace_net::wire::metadata::{MetadataRequest, MetadataResponse};
use millrace_net::wire::versions::{self, SERVED};
use millrace_net::wire::{ApiKey, ErrorCode, Reader, Request, Str, WireError, Writer};

const FRAME_MAX: usize = 1 << 20;

#[test]
fn request_headers_of_every_served_version_agree() {
    for row in SERVED {
        let oracle_key = OracleKey::try_from(row.key.code()).expect("oracle knows the key");
        for version in row.min..=row.max {
            for client_id in [None, Some(""), Some("client-ž")] {
                let mut theirs = BytesMut::new();
                OracleHeader::default()
                    .with_request_api_key(row.key.code())
                    .with_request_api_version(version)
                    .with_correlation_id(-7)
                    .with_client_id(client_id.map(StrBytes::from_static_str))
                    .encode(&mut theirs, oracle_key.request_header_version(version))
                    .expect("valid");
                let theirs = theirs.freeze();

                let mut reader = Reader::new(theirs.clone());
                let (header, found) = RequestHeader::decode(&mut reader).expect("readable");
                reader.finish().expect("nothing left");
                assert_eq!(found, row);
                let client_id = client_id.map(Str::from_static);
                assert_eq!(
                    header,
                    RequestHeader {
                        key: row.key,
                        version,
                        correlation_id: -7,
                        client_id
                    }
                );

                let mut ours = Writer::new();
                header.encode(&mut ours, row.first_flexible).expect("valid");
                assert_eq!(ours.into_bytes(), theirs, "{} v{version}", row.key);
            }
        }
    }
}

#[test]
fn keys_are_named_and_numbered_as_in_the_oracle() {
    for &key in ApiKey::ALL {
        let theirs = OracleKey::try_from(key.code()).expect("oracle knows the key");
        assert_eq!(format!("{theirs:?}"), key.name());
    }
}

#[test]
fn error_codes_are_named_and_numbered_as_in_the_oracle() {
    for code in -2..200 {
        let theirs = match ResponseError::try_from_code(code) {
            None => "None".to_owned(),
            Some(ResponseError::Unknown(_)) => String::new(),
            Some(error) => format!("{error:?}"),
        };
        let ours = ErrorCode::from_code(code);
        assert_eq!(
            ours.map(|error| format!("{error:?}")).unwrap_or_default(),
            theirs,
            "code {code}"
        );
        if let Some(error) = ours {
            assert_eq!(error.code(), code);
            assert_eq!(error.name().replace('_', ""), theirs.to_uppercase());
        }
    }
    assert_eq!(ErrorCode::ALL.len(), 135);
}

#[test]
fn unserved_keys_and_the_oldest_header_are_refused() {
    // ControlledShutdown version 0 was the only user of header version 0.
    for key in [7i16, -1, 1000] {
        let mut frame = key.to_be_bytes().to_vec();
        frame.extend([0, 0, 0, 0, 0, 9]);
        assert_eq!(
            RequestHeader::decode(&mut Reader::new(frame.into())),
            Err(WireError::UnknownApiKey { key })
        );
    }
}

#[test]
fn a_request_from_the_future_can_be_refused() {
    let mut frame = vec![0, 18, 0, 99, 0, 0, 0, 9, 0, 1, b'c', 0];
    frame.extend(b"whatever it says");
    let (header, row) = RequestHeader::decode(&mut Reader::new(frame.into())).expect("readable");
    assert_eq!((header.version, header.correlation_id), (99, 9));
    assert!(!row.serves(99));
}

/// Reads a response frame as a client would: size, then a header of the oracle's version.
fn open_response<R: Request>(mut frame: Bytes, version: i16) -> (i32, Bytes) {
    let size = frame.get_i32();
    assert_eq!(size as usize, frame.len());
    let key = OracleKey::try_from(R::KEY.code()).expect("oracle knows the key");
    let header =
        ResponseHeader::decode(&mut frame, key.response_header_version(version)).expect("readable");
    (header.correlation_id, frame)
}

#[test]
fn response_headers_agree_and_those_of_api_versions_stay_old() {
    for version in 0..=13 {
        let response = MetadataResponse::default();
        let frame =
            frame::encode_response::<MetadataRequest>(5, &response, version).expect("valid");
        let (correlation_id, mut body) = open_response::<MetadataRequest>(frame.clone(), version);
        assert_eq!(correlation_id, 5);
        kafka_protocol::messages::MetadataResponse::decode(&mut body, version).expect("readable");
        assert!(body.is_empty());
        assert_eq!(
            frame::decode_response::<MetadataRequest>(frame.slice(4..), 5, version),
            Ok(response)
        );
    }
    for version in 0..=4 {
        let response = ApiVersionsResponse {
            api_keys: versions::advertised(),
            ..Default::default()
        };
        let frame =
            frame::encode_response::<ApiVersionsRequest>(6, &response, version).expect("valid");
        let (correlation_id, mut body) =
            open_response::<ApiVersionsRequest>(frame.clone(), version);
        assert_eq!(correlation_id, 6);
        let theirs = kafka_protocol::messages::ApiVersionsResponse::decode(&mut body, version)
            .expect("readable");
        assert!(body.is_empty());
        assert_eq!(theirs.api_keys.len(), SERVED.len());
        assert_eq!(
            api_versions::decode_reply(frame.slice(4..), 6, version),
            Ok((response, version))
        );
    }
}

#[test]
fn a_refusal_in_version_0_is_understood() {
    let refusal = versions::refusal();
    let named = [ApiVersion {
        api_key: 18,
        min_version: 0,
        max_version: 5,
    }];
    assert_eq!(
        (refusal.error_code, &refusal.api_keys[..]),
        (35, &named[..])
    );
    let frame = frame::encode_response::<ApiVersionsRequest>(1, &refusal, 0)
        .expect("valid")
        .slice(4..);
    assert_eq!(
        api_versions::decode_reply(frame.clone(), 1, 4),
        Ok((refusal, 0))
    );
    assert_eq!(
        api_versions::decode_reply(frame, 2, 4),
        Err(WireError::CorrelationMismatch {
            expected: 2,
            got: 1
        })
    );
}

#[test]
fn frames_come_whole_or_not_at_all() {
    let request = MetadataRequest {
        topics: None,
        ..Default::default()
    };
    let frame = frame::encode_request(3, Some("me".into()), &request, 12).expect("valid");
    let mut buf = BytesMut::new();
    for &byte in &frame[..frame.len() - 1] {
        buf.extend_from_slice(&[byte]);
        assert_eq!(frame::take_frame(&mut buf, FRAME_MAX), Ok(None));
    }
    buf.extend_from_slice(&frame[frame.len() - 1..]);
    buf.extend_from_slice(&frame);
    for _ in 0..2 {
        assert_eq!(
            frame::take_frame(&mut buf, FRAME_MAX),
            Ok(Some(frame.slice(4..)))
        );
    }
    assert!(buf.is_empty());
}

#[test]
fn sizes_are_checked_before_anything_is_read() {
    let size = |size: i32| frame::peek_size(&size.to_be_bytes(), FRAME_MAX);
    assert_eq!(size(0), Ok(Some(0)));
    assert_eq!(size(FRAME_MAX as i32), Ok(Some(FRAME_MAX)));
    assert_eq!(
        size(FRAME_MAX as i32 + 1),
        Err(WireError::FrameTooLarge {
            size: FRAME_MAX + 1,
            max: FRAME_MAX
        })
    );
    assert_eq!(
        size(i32::MIN),
        Err(WireError::FrameNegative { size: i32::MIN })
    );
    assert_eq!(frame::peek_size(&[0, 0, 0], FRAME_MAX), Ok(None));
}

#[test]
fn fetched_records_are_sent_by_reference() {
    let long = Bytes::from(vec![7; 10_000]);
    let short = Bytes::from_static(b"short");
    let response = FetchResponse {
        responses: vec![FetchableTopicResponse {
            topic: "t".into(),
            partitions: vec![
                PartitionData {
                    records: vec![long.clone(), short, long.slice(5..)].into(),
                    ..Default::default()
                },
                PartitionData {
                    partition_index: 1,
                    records: long.clone().into(),
                    ..Default::default()
                },
            ],
            ..Default::default()
        }],
        ..Default::default()
    };
    for version in 4..=12 {
        let pieces =
            frame::encode_response_pieces::<FetchRequest>(1, &response, version).expect("valid");
        let by_reference = [
            long.as_ptr_range(),
            long[5..].as_ptr_range(),
            long.as_ptr_range(),
        ];
        let referenced: Vec<_> = pieces
            .iter()
            .filter(|piece| piece.len() > 5000)
            .map(|p| p.as_ptr_range())
            .collect();
        assert_eq!(referenced, by_reference);
        let flat = frame::encode_response::<FetchRequest>(1, &response, version).expect("valid");
        assert_eq!(pieces.concat(), flat);
        assert!(pieces.iter().all(|piece| !piece.is_empty()));
        assert_eq!(
            frame::decode_response::<FetchRequest>(flat.slice(4..), 1, version),
            Ok(response.clone())
        );
    }
}
