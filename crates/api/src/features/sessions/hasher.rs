//! argon2id in memory that is kept for the next hash. From the system it would come page by page, which is a part of what a hash
//! costs; and the allocator keeps what it got back once for every thread that ever hashed, more than all hashes need at once.

use std::sync::{Arc, Mutex, PoisonError};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::{
        CustomizedPasswordHasher, Error,
        phc::{Output, ParamsString, PasswordHash, Salt},
    },
};

/// A clone uses the same memory. Compares, too: whatever hashes with the parameters of a stored hash can
/// (`password_hash::PasswordVerifier`).
#[derive(Clone)]
pub struct Hasher {
    params: Params,
    /// As many as were ever at work at once.
    memory: Arc<Mutex<Vec<Vec<Block>>>>,
}

impl Hasher {
    pub fn new(params: Params) -> Self {
        Self {
            params,
            memory: Arc::default(),
        }
    }

    /// What a new hash costs.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// A new hash.
    pub fn hash(&self, password: &[u8]) -> Result<PasswordHash, Error> {
        let salt = Salt::generate();
        self.hash_password_customized(password, &salt, None, None, self.params.clone())
    }

    fn with_memory<T>(&self, blocks: usize, work: impl FnOnce(&mut [Block]) -> T) -> T {
        let kept = || self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = kept().pop().unwrap_or_default();
        memory.resize(blocks, Block::default());
        let done = work(&mut memory);
        kept().push(memory);
        done
    }
}

impl CustomizedPasswordHasher<PasswordHash> for Hasher {
    type Params = Params;

    fn hash_password_customized(
        &self,
        password: &[u8],
        salt: &[u8],
        algorithm: Option<&str>,
        version: Option<u32>,
        params: Params,
    ) -> Result<PasswordHash, Error> {
        let algorithm = algorithm.map_or(Ok(Algorithm::Argon2id), Algorithm::try_from)?;
        let version = version.map_or(Ok(Version::V0x13), Version::try_from)?;
        let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
        let mut output = [0; Output::MAX_LENGTH];
        let output = output.get_mut(..length).ok_or(Error::OutputSize)?;

        let blocks = params.block_count();
        let hash = PasswordHash {
            algorithm: algorithm.ident(),
            version: Some(version.into()),
            params: ParamsString::try_from(&params)?,
            salt: Some(Salt::new(salt)?),
            hash: None,
        };
        let argon2 = Argon2::new(algorithm, version, params);
        self.with_memory(blocks, |memory| {
            argon2.hash_password_into_with_memory(password, salt, output, memory)
        })?;
        Ok(PasswordHash {
            hash: Some(Output::new(output)?),
            ..hash
        })
    }
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordHasher, PasswordVerifier};

    use super::*;

    #[test]
    fn it_hashes_what_argon2_itself_compares_and_compares_what_that_hashed() {
        let params = Params::new(64, 2, 1, None).unwrap();
        let own = Hasher::new(params.clone());
        let other = Argon2::from(Params::new(32, 3, 1, None).unwrap());

        for _ in 0..2 {
            let hash = own.hash(b"correct horse").unwrap();
            assert!(other.verify_password(b"correct horse", &hash).is_ok());
            assert!(other.verify_password(b"wrong horse", &hash).is_err());
            let hash = other.hash_password(b"correct horse").unwrap();
            assert!(own.verify_password(b"correct horse", &hash).is_ok());
            assert!(own.verify_password(b"wrong horse", &hash).is_err());
        }
        let memory = own.memory.lock().unwrap();
        assert_eq!(memory.len(), 1, "one hash at a time");
    }
}
