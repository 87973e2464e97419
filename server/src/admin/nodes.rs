//! Nodes for operators: listed, shown, banned, forgotten.

use berth_domain::name::NodeName;
use berth_proto::admin::v1::node_service_server::NodeService;
use berth_proto::admin::{parse_field, v1, words_from_wire};
use berth_proto::{facts_to_wire, node_to_wire};
use tonic::{Request, Response, Status};

use super::operator::operator;
use super::{Desk, invalid, status};
use crate::ports::{NodeView, Release};

#[tonic::async_trait]
impl NodeService for Desk {
    async fn list_nodes(
        &self,
        _request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let nodes = self.cluster.nodes(None).await.map_err(status)?;
        Ok(Response::new(v1::ListNodesResponse { nodes: nodes.iter().map(to_wire).collect() }))
    }

    async fn show_node(
        &self,
        request: Request<v1::ShowNodeRequest>,
    ) -> Result<Response<v1::ShowNodeResponse>, Status> {
        let name: NodeName = parse_field("name", &request.get_ref().name).map_err(invalid)?;
        let nodes = self.cluster.nodes(Some(&name)).await.map_err(status)?;
        let node = nodes.first().ok_or_else(|| unknown(&name))?;
        Ok(Response::new(v1::ShowNodeResponse {
            node: Some(to_wire(node)),
            facts: node.facts.as_deref().map(facts_to_wire),
        }))
    }

    async fn ban_node(
        &self,
        request: Request<v1::BanNodeRequest>,
    ) -> Result<Response<v1::BanNodeResponse>, Status> {
        let by = operator(&request)?;
        let asked = request.into_inner();
        let reason = words_from_wire("reason", asked.reason).map_err(invalid)?;
        self.release(&asked.name, Release::Banned { by, reason }, unknown).await?;
        Ok(Response::new(v1::BanNodeResponse {}))
    }

    async fn unban_node(
        &self,
        request: Request<v1::UnbanNodeRequest>,
    ) -> Result<Response<v1::UnbanNodeResponse>, Status> {
        let by = operator(&request)?;
        self.release(&request.get_ref().name, Release::Unbanned { by }, not_banned).await?;
        Ok(Response::new(v1::UnbanNodeResponse {}))
    }

    async fn forget_node(
        &self,
        request: Request<v1::ForgetNodeRequest>,
    ) -> Result<Response<v1::ForgetNodeResponse>, Status> {
        let by = operator(&request)?;
        self.release(&request.get_ref().name, Release::Forgotten { by }, unknown).await?;
        Ok(Response::new(v1::ForgetNodeResponse {}))
    }
}

impl Desk {
    async fn release(
        &self,
        asked: &str,
        how: Release,
        otherwise: fn(&NodeName) -> Status,
    ) -> Result<(), Status> {
        let name: NodeName = parse_field("name", asked).map_err(invalid)?;
        match self.cluster.release(&name, how, self.clock.now()).await.map_err(status)? {
            true => Ok(()),
            false => Err(otherwise(&name)),
        }
    }
}

fn to_wire(node: &NodeView) -> v1::Node {
    node_to_wire(&node.record, node.ban.as_ref(), node.facts.as_deref())
}

fn unknown(name: &NodeName) -> Status {
    Status::not_found(format!("there is no node {name}; berth-server nodes list shows those there are"))
}

fn not_banned(name: &NodeName) -> Status {
    Status::not_found(format!("no machine is banned under the name {name}"))
}
