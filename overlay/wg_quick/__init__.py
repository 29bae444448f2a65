"""The files of wg-quick(8), read and written: conversion between them and a peers file."""
