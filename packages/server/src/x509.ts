/** `@peculiar/x509` with the metadata polyfill that it wants to find; imported through here only. */
import 'reflect-metadata'

export * from '@peculiar/x509'
