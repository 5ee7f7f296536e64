use super::*;

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_json_is_kafkas() {
    assert_eq!(
        text(topic_json(
            TopicId(1u128.to_be_bytes()),
            &[vec![1, 2], vec![2, 1]]
        )),
        r#"{"version":3,"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partitions":{"0":[1,2],"1":[2,1]},"adding_replicas":{},"removing_replicas":{}}"#
    );
    let partition = Partition {
        leader: Some(1),
        leader_epoch: LeaderEpoch(0),
        replicas: vec![1, 2],
        isr: vec![1, 2],
    };
    let state = state_json(&partition, 1);
    assert_eq!(
        text(state.clone()),
        r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1,2]}"#
    );
    assert_eq!(read_partition(vec![1, 2], Some(&state)), partition);
    let config = Overrides::from([("retention.ms".to_owned(), "1000".to_owned())]);
    assert_eq!(
        text(config_json(&config)),
        r#"{"version":1,"config":{"retention.ms":"1000"}}"#
    );
    assert_eq!(read_config(Some(&config_json(&config))), config);
    assert_eq!(text(cluster_id_json("x")), r#"{"version":"1","id":"x"}"#);
    assert_eq!(
        text(producer_block_json(1, 0)),
        r#"{"version":1,"broker":1,"block_start":"0","block_end":"999"}"#
    );
    assert_eq!(
        read_producer_block(&producer_block_json(1, 2000)),
        Some(2999)
    );
}

#[test]
fn a_broker_comes_back_whole_and_old_ones_are_read() {
    let endpoint = |listener: &str, protocol: &str, host: &str, port| Endpoint {
        listener: listener.to_owned(),
        protocol: protocol.to_owned(),
        host: host.to_owned(),
        port,
    };
    let endpoints = vec![
        endpoint("PLAINTEXT", "PLAINTEXT", "::1", 9092),
        endpoint("OUT", "SSL", "h", 9093),
    ];
    let broker = Broker {
        id: 3,
        rack: Some("r1".to_owned()),
        endpoints,
        hosts_coordinator: true,
    };
    let data = broker_json(&broker, TimestampMs(5));
    assert!(
        text(data.clone()).contains(r#""endpoints":["PLAINTEXT://[::1]:9092","OUT://h:9093"]"#)
    );
    assert_eq!(read_broker(3, &data), Some(broker));

    let old = br#"{"jmx_port":-1,"timestamp":"1","host":"h","version":1,"port":9092}"#;
    assert_eq!(
        read_broker(1, old).unwrap().endpoints,
        [endpoint("PLAINTEXT", "PLAINTEXT", "h", 9092)]
    );
}

#[test]
fn what_a_hand_wrote_wrong_is_not_taken() {
    for bad in [
        "",
        "null",
        "{}",
        r#"{"version":1,"partitions":{"0":[1]}}"#,
        r#"{"version":3,"topic_id":"x","partitions":{"0":[1]}}"#,
        r#"{"version":3,"topic_id":"AAAAAAAAAAAAAAAAAAAAAA","partitions":{"0":[1]}}"#,
        r#"{"version":3,"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partitions":{"1":[1]}}"#,
        r#"{"version":3,"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partitions":{"-1":[1],"0":[1]}}"#,
        r#"{"version":3,"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partitions":{}}"#,
    ] {
        assert_eq!(
            TopicNode::read(bad.as_bytes()).and_then(|t| t.id),
            None,
            "{bad}"
        );
    }
    assert_eq!(read_partition(vec![1], Some(b"x")).leader, None);
    assert_eq!(read_config(Some(b"[]")), Overrides::new());
    assert_eq!(
        read_producer_block(br#"{"version":1,"broker":1,"block_start":"0","block_end":"x"}"#),
        None
    );
}
