//! `?include=`: what a client wants loaded along with the things it asked for. It is loaded for all of them at once,
//! because there is no way here to ask for one.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use serde::{
    Deserialize,
    de::{DeserializeOwned, IntoDeserializer},
};

/// The relations to include, comma-separated in the query. `R` is the enum of those that a route offers; a name that is
/// not in it is refused with 400 and those that are.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String", bound = "R: DeserializeOwned + PartialEq")]
pub struct Include<R>(Vec<R>);

impl<R> Default for Include<R> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<R: DeserializeOwned + PartialEq> TryFrom<String> for Include<R> {
    type Error = serde::de::value::Error;

    fn try_from(names: String) -> Result<Self, Self::Error> {
        let mut relations = Vec::new();
        for name in names.split(',') {
            let relation = R::deserialize(name.into_deserializer())?;
            if !relations.contains(&relation) {
                relations.push(relation);
            }
        }
        Ok(Self(relations))
    }
}

impl<R: PartialEq> Include<R> {
    /// Whether `relation` is to be included.
    pub fn has(&self, relation: &R) -> bool {
        self.0.contains(relation)
    }

    /// What `keys` refer to, by key, if `relation` is to be included. `load` is called once for all keys, each of them
    /// given once, and not at all where there are none: a page costs one statement more, however long it is.
    pub async fn load<K: Ord + Hash, V, E>(
        &self,
        relation: R,
        keys: impl IntoIterator<Item = K>,
        load: impl AsyncFnOnce(Vec<K>) -> Result<Vec<(K, V)>, E>,
    ) -> Result<Option<HashMap<K, V>>, E> {
        if !self.has(&relation) {
            return Ok(None);
        }
        let keys: BTreeSet<K> = keys.into_iter().collect();
        if keys.is_empty() {
            return Ok(Some(HashMap::new()));
        }
        let found = load(keys.into_iter().collect()).await?;
        Ok(Some(found.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Relation {
        Parents,
        Children,
    }

    fn parse(names: &str) -> Result<Include<Relation>, String> {
        Include::try_from(names.to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn relations_are_named_once_each_and_an_unknown_one_is_refused_with_what_there_is() {
        assert_eq!(
            parse("children,parents,children"),
            Ok(Include(vec![Relation::Children, Relation::Parents]))
        );
        for unknown in ["", "cousins", "parents,", "parents,,children"] {
            let refusal = parse(unknown).unwrap_err();
            assert!(
                refusal.contains("`parents` or `children`"),
                "{unknown}: {refusal}"
            );
        }
    }

    #[tokio::test]
    async fn one_load_has_each_key_once_and_none_happens_for_nothing() {
        let include = parse("parents").unwrap();
        let load = async |keys: Vec<u8>| Ok::<_, Infallible>(vec![(keys[0], keys)]);
        let never = async |_| panic!("nothing was to be loaded");

        let loaded = include.load(Relation::Parents, [3, 1, 3, 2], load).await;
        let of_nothing = include
            .load::<u8, (), Infallible>(Relation::Parents, [], never)
            .await;
        let not_wanted = include
            .load::<u8, (), Infallible>(Relation::Children, [1], never)
            .await;

        assert_eq!(loaded, Ok(Some(HashMap::from([(1, vec![1, 2, 3])]))));
        assert_eq!(
            (of_nothing, not_wanted),
            (Ok(Some(HashMap::new())), Ok(None))
        );
    }
}
