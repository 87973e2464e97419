//! A call that the server ends while the agent wants to say something.

use berth_domain::conversation::{JoinFromAgent, JoinFromServer};
use berth_domain::diagnosis::Code as Cause;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_proto::join::v1;
use berth_proto::{join_to_agent, join_to_server, refusal_to_status};
use tokio_stream::Stream;
use tonic::codec::{Codec as _, EncodeBody, SingleMessageCompressionOverride};
use tonic_prost::ProstCodec;

use super::*;

type Joining = Talk<v1::JoinRequest, v1::JoinResponse>;

/// A call whose server says this and then hears nothing any more.
async fn ended(said: impl Stream<Item = Result<v1::JoinResponse, Status>> + Send + 'static) -> Joining {
    let meaning = Meaning {
        endpoint: "server:7443".parse().expect("an endpoint"),
        seen: Arc::default(),
        alerts: Arc::new(|_| None),
    };
    let call = async |request: Request<ReceiverStream<v1::JoinRequest>>| {
        drop(request);
        let mut codec = ProstCodec::<v1::JoinResponse, v1::JoinResponse>::default();
        let each = SingleMessageCompressionOverride::default();
        let body = EncodeBody::new_server(codec.encoder(), said, None, each, None);
        Ok(Response::new(Streaming::new_response(codec.decoder(), body, http::StatusCode::OK, None, None)))
    };
    Talk::open(rpc::JOIN, meaning, call).await.expect("it is accepted")
}

fn health() -> v1::JoinRequest {
    join_to_server(&JoinFromAgent::Health(Vec::new()))
}

#[tokio::test]
async fn what_the_server_had_said_before_it_ended_the_call_is_heard() {
    let ready = join_to_agent(&JoinFromServer::Ready { since: Timestamp::from_millis(5) });
    let mut talk = ended(tokio_stream::once(Ok(ready.clone()))).await;
    talk.say(health()).await.expect("the server has said something");
    talk.say(health()).await.expect("and it was not heard yet");
    assert_eq!(talk.hear(None).await.expect("its last word"), ready);
    assert!(matches!(talk.say(health()).await, Err(LineError::Lost)), "nothing follows");
}

#[tokio::test]
async fn a_refusal_that_ended_the_call_is_what_the_agent_learns() {
    let why = Diagnosis::new(Cause::StoreUnavailable, Phase::Registration).with("since", "then");
    let mut talk = ended(tokio_stream::once(Err(refusal_to_status(&why)))).await;
    let Err(LineError::Refused(told)) = talk.say(health()).await else { panic!("it was refused") };
    assert_eq!((told.code(), told.value("since")), (Cause::StoreUnavailable, Some("then")));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hears_nothing_and_says_nothing_is_lost() {
    let mut talk = ended(tokio_stream::pending()).await;
    let began = tokio::time::Instant::now();
    assert!(matches!(talk.say(health()).await, Err(LineError::Lost)));
    assert_eq!(began.elapsed(), LAST_WORD);
}
